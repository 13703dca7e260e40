import torch
from torch import nn

from mgic_geo import EdgeConv
from mgic_geo.graph.edge_maps import both_maps
from mgic_geo.graph.edge_norm import track_centered


def test_running_statistics_see_the_common_part():
    torch.manual_seed(0)
    conv, norm, twin = EdgeConv(8, 12, 2), nn.BatchNorm1d(12), nn.BatchNorm1d(12)
    sign = torch.where(torch.arange(12) % 3 == 0, -1.0, 1.0)
    center, neighbor = 5 + torch.randn(2, 40, 8)
    ends = [x.unflatten(1, (2, -1)) for x in (center, neighbor - center)]
    twin(conv.lin(torch.cat(ends, 2).flatten(1)))
    common = torch.cat([center, neighbor]).mean(0)
    ends = [x.unflatten(1, (2, -1)) for x in (center - common, neighbor - center)]
    edges = sign * conv.lin(torch.cat(ends, 2).flatten(1)).detach()
    weight = both_maps(sign.unsqueeze(1) * conv.lin.weight, 2)
    track_centered(norm, sign, edges.mean(0), edges.var(0, correction=0), weight, common, 40)
    for a, b in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
