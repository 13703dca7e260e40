import pytest
import torch
from torch import nn

from mgic_geo import EdgeConv
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edge_maps import both_biases, both_maps, track


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_u_of_one_end_and_v_of_the_other_are_the_map_of_the_edge(groups):
    torch.manual_seed(0)
    conv = EdgeConv(8, 12, groups, act=None, norm=None, bias=True)
    nn.init.normal_(conv.lin.bias)
    center, neighbor = torch.randn(2, 5, 8)
    weight, bias = both_maps(conv.lin.weight, groups), both_biases(conv.lin.bias, groups)
    parts = [grouped_linear(x, weight, bias, groups).view(5, groups, 2, -1) for x in (center, neighbor)]
    edges = (parts[0][:, :, 0] + parts[1][:, :, 1]).flatten(1)
    ends = [x.unflatten(1, (groups, -1)) for x in (center, neighbor - center)]
    torch.testing.assert_close(edges, conv.lin(torch.cat(ends, 2).flatten(1)))


def test_running_statistics_see_the_common_part():
    torch.manual_seed(0)
    conv, norm, twin = EdgeConv(8, 12, 2), nn.BatchNorm1d(12), nn.BatchNorm1d(12)
    sign = torch.where(torch.arange(12) % 3 == 0, -1.0, 1.0)
    center, neighbor = 5 + torch.randn(2, 40, 8)
    ends = [x.unflatten(1, (2, -1)) for x in (center, neighbor - center)]
    twin(conv.lin(torch.cat(ends, 2).flatten(1)))
    middle = torch.cat([center, neighbor]).mean(0)
    ends = [x.unflatten(1, (2, -1)) for x in (center - middle, neighbor - center)]
    edges = sign * conv.lin(torch.cat(ends, 2).flatten(1)).detach()
    weight = both_maps(sign.unsqueeze(1) * conv.lin.weight, 2)
    track(norm, sign, edges.mean(0), edges.var(0, correction=0), weight, middle, 40)
    for a, b in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
