import pytest
import torch
from torch import nn

from mgic_geo import EdgeConv
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edge_maps import both_biases, both_maps


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
