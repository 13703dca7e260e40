import pytest
import torch
from torch import nn

from mgic_geo import EdgeConv, GroupedLinear, knn
from mgic_geo.graph.edge_conv_folded import fold_edge_conv
from mgic_geo.graph.neighbors import Neighbors


def statistics(norm):
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.2, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.eval()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_the_norm_inside_whatever_its_signs(groups, bias):
    torch.manual_seed(0)
    conv = EdgeConv(4, 8, groups=groups, bias=bias, act="leaky_relu").double().eval()
    statistics(conv.norm)
    conv.norm.weight.data[3] = 0
    x = torch.randn(2, 20, 4, dtype=torch.double) + 10
    table = knn(x, 5)
    folded = fold_edge_conv(conv)
    torch.testing.assert_close(folded(x, table), conv(x, table), atol=1e-12, rtol=1e-12)
    edges = torch.stack([torch.randint(20, (30,)), torch.randint(10, (30,))])  # ten nodes have none
    torch.testing.assert_close(folded(x[0], edges), conv(x[0], edges), atol=1e-12, rtol=1e-12)
    pair = (x[1], x[0, :12])
    torch.testing.assert_close(folded(pair, edges), conv(pair, edges), atol=1e-12, rtol=1e-12)
    with pytest.raises(ValueError, match="graph has 40 source and 40 target nodes, but x has 20 and 20"):
        folded(x[0], Neighbors.from_table(table))
    assert repr(folded).startswith(f"FoldedEdgeConv(\n  4, 8, groups={groups}")


def test_no_graph_of_a_batch_sees_another():
    torch.manual_seed(0)
    conv = EdgeConv(4, 8).eval()
    statistics(conv.norm)
    folded, x, edges = fold_edge_conv(conv), torch.randn(40, 4), torch.randint(20, (2, 60))
    alone, x[20:] = folded(x[:20], edges), torch.nan
    assert torch.equal(folded(x, torch.cat([edges, edges + 20], 1))[:20], alone)


def test_the_norm_behind_where_scales_are_positive():
    torch.manual_seed(0)
    conv, norm = EdgeConv(4, 8, norm=None, act=None).double(), statistics(nn.BatchNorm1d(8)).double()
    x, edges = torch.randn(20, 4, dtype=torch.double), torch.stack([torch.randint(20, (30,))] * 2) // 2
    assert fold_edge_conv(conv, norm) is None
    norm.weight.data.abs_()
    torch.testing.assert_close(
        fold_edge_conv(conv, norm)(x, edges), norm(conv(x, edges)), atol=1e-12, rtol=1e-12
    )
    assert fold_edge_conv(EdgeConv(4, 8, norm=None), norm) is None  # an activation lies between
    assert fold_edge_conv(conv, nn.LayerNorm(8)) is None
    assert fold_edge_conv(EdgeConv(4, 8), norm) is None


def test_behind_a_restriction():
    torch.manual_seed(0)
    restriction = GroupedLinear(8, 4, groups=2).double()
    folded = fold_edge_conv(EdgeConv(4, 4, norm=None, act=None).double())
    x = torch.randn(20, 8, dtype=torch.double)
    graph = Neighbors.from_table(knn(x, 5))
    torch.testing.assert_close(folded.behind(restriction)(x, graph), folded(restriction(x), graph))
