import pickle
from functools import partial
from itertools import pairwise

import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.nn.models.basic_gnn import BasicGNN

from mgic_geo import EdgeConv, MGICDynamicEdgeConv, MGICGraphConv, knn, knn_graph

LAYERS = [EdgeConv, pyg.GCNConv, pyg.SAGEConv, pyg.GraphConv, pyg.GINConv, pyg.GATv2Conv, pyg.TAGConv]


@pytest.fixture
def graph():
    torch.manual_seed(0)
    x = torch.randn(40, 16)
    return x, knn_graph(x, 6)


@pytest.mark.parametrize("conv", LAYERS)
@pytest.mark.parametrize(("width_in", "width_out"), [(16, 16), (16, 40), (16, 24)])
def test_every_layer_couples_all_channels(conv, width_in, width_out, graph):
    x, edge_index = graph
    layer = (
        MGICGraphConv(width_in, width_out, conv=conv, group_size=4, coarse_size=8, act="tanh").double().eval()
    )
    x = x.double().requires_grad_()
    out = layer(x, edge_index)
    assert out.shape == (40, width_out)
    for channel in (0, width_out - 1):
        (gradient,) = torch.autograd.grad(out[:, channel].sum(), x, retain_graph=True)
        assert bool((gradient.abs().amax(0) > 0).all())


@pytest.mark.parametrize("conv", LAYERS)
def test_trains(conv, graph):
    x, edge_index = graph
    torch.manual_seed(0)
    layer = MGICGraphConv(16, 32, conv=conv, group_size=8, coarse_size=8)
    target = torch.randn(40, 32)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(x, edge_index) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in layer.parameters())


def test_parameters_grow_linearly():
    count = [sum(p.numel() for p in MGICGraphConv(c, c).parameters()) for c in (256, 512, 1024, 2048)]
    slopes = [b / a for a, b in pairwise(count)]
    assert all(1.9 < slope < 2.1 for slope in slopes)
    dense = [sum(p.numel() for p in pyg.SAGEConv(c, c).parameters()) for c in (1024, 2048)]
    assert dense[1] / dense[0] > 3.9


def test_the_block_is_the_designs_formula(graph):
    x, edge_index = graph
    layer = MGICGraphConv(16, 16, conv=pyg.GraphConv, coarse_size=16).train()
    block = layer.cycle.blocks[0]
    conv = block.conv(x, edge_index)
    mean, var = conv.mean(0), conv.var(0, unbiased=False)
    torch.testing.assert_close(layer(x, edge_index), x + ((conv - mean) / (var + 1e-5).sqrt()).relu())


def test_dense_clouds_equal_nodes_with_batch():
    torch.manual_seed(0)
    x = torch.randn(3, 25, 16)
    layer = MGICDynamicEdgeConv(16, 32, k=5, group_size=8, coarse_size=8).eval()
    flat = layer(x.view(75, 16), torch.arange(3).repeat_interleave(25))
    dense = layer(x)
    assert dense.shape == (3, 25, 32)
    torch.testing.assert_close(dense.view(75, 32), flat)
    fixed = MGICGraphConv(16, 32, conv=EdgeConv, group_size=8, coarse_size=8).eval()
    fixed.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fixed(x, knn(x, 5)), dense)


def test_edge_conv_inside_takes_any_edge_index(graph):
    x, edge_index = graph
    layer = MGICGraphConv(16, 32, conv=EdgeConv, group_size=8, coarse_size=8).eval()
    torch.testing.assert_close(layer(x, edge_index[:, torch.randperm(240)]), layer(x, edge_index))
    turned = MGICGraphConv(16, 32, conv=EdgeConv, group_size=8, coarse_size=8, flow="target_to_source").eval()
    turned.load_state_dict(layer.state_dict())
    torch.testing.assert_close(turned(x, edge_index.flip(0)), layer(x, edge_index))


def test_arguments_reach_the_layer(graph):
    x, edge_index = graph
    weight = torch.rand(edge_index.size(1))
    layer = MGICGraphConv(16, 32, conv=pyg.GCNConv).eval()
    assert not torch.equal(layer(x, edge_index, weight), layer(x, edge_index))
    torch.testing.assert_close(layer(x, edge_index, edge_weight=weight), layer(x, edge_index, weight))
    attention = MGICGraphConv(16, 32, conv=pyg.GATv2Conv, heads=2, edge_dim=3)
    assert attention(x, edge_index, edge_attr=torch.randn(edge_index.size(1), 3)).shape == (40, 32)


class MGICSAGE(BasicGNN):
    supports_edge_weight = False
    supports_edge_attr = False
    supports_norm_batch = False

    def init_conv(self, in_channels, out_channels, **kwargs):
        return MGICGraphConv(in_channels, out_channels, conv=pyg.SAGEConv, **kwargs)


def test_drops_into_pyg_models(graph):
    x, edge_index = graph
    assert MGICSAGE(16, 32, num_layers=3, out_channels=5, jk="cat", group_size=8)(x, edge_index).shape == (
        40,
        5,
    )
    model = pyg.Sequential("x, edge_index", [(MGICGraphConv(16, 32), "x, edge_index -> x"), nn.Linear(32, 2)])
    assert model(x, edge_index).shape == (40, 2)


@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm", nn.BatchNorm1d])
def test_norms_keep_the_graphs_of_a_batch_apart(norm, graph):
    x, edge_index = graph
    layer = MGICGraphConv(16, 32, norm=norm, act=None).eval()
    alone = layer(x, edge_index)
    both = layer(torch.cat([x, 3 * x]), torch.cat([edge_index, edge_index + 40], dim=1))
    torch.testing.assert_close(both[:40], alone)
    assert alone.isfinite().all()


@pytest.mark.parametrize("norm", ["graph_norm", "pair_norm", "nonsense"])
def test_norms_over_whole_graphs_are_refused(norm):
    with pytest.raises(ValueError, match=f"None or a factory norm\\(width\\), got '{norm}'"):
        MGICGraphConv(16, 32, norm=norm)


def test_layers_by_name_and_pygs_edge_conv():
    for conv, wanted in (("SAGEConv", pyg.SAGEConv), (pyg.EdgeConv, EdgeConv)):
        layer = MGICGraphConv(16, 32, conv=conv)
        assert type(layer.cycle.blocks[-1].conv) is wanted
        assert f"conv={wanted.__name__}," in repr(layer)
    with pytest.raises(ValueError, match="such as 'SAGEConv', got 'Linear'"):
        MGICGraphConv(16, 32, conv="Linear")


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_dense_clouds_reach_pyg_layers(flow):
    torch.manual_seed(0)
    x = torch.randn(2, 20, 16)
    layer = MGICGraphConv(16, 32, flow=flow).eval()
    graph = knn_graph(x.view(40, 16), 4, torch.arange(2).repeat_interleave(20), loop=True, flow=flow)
    torch.testing.assert_close(layer(x, knn(x, 4)).view(40, 32), layer(x.view(40, 16), graph))


@pytest.mark.parametrize("width", [16, -1])
def test_pickles_with_a_local_factory(width, graph):
    def gin(width_in, width_out):
        return pyg.GINConv(nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU()))

    torch.manual_seed(0)
    for conv in (gin, lambda *widths: gin(*widths), partial(pyg.SAGEConv, bias=False)):
        layer = MGICGraphConv(width, 32, conv=conv).eval()
        twin = pickle.loads(pickle.dumps(layer))
        assert repr(twin) == repr(layer)
        layer(*graph)
        twin = pickle.loads(pickle.dumps(layer))
        assert torch.equal(twin(*graph), layer(*graph))


def test_transfers_start_with_rows_of_either_sign():
    for layer in (MGICGraphConv(32, 64), MGICGraphConv(32, 64, "edge"), MGICDynamicEdgeConv(32, 64, k=3)):
        for transfer in (*layer.cycle.restrictions, *layer.cycle.prolongations):
            assert transfer.init == "signed"
            assert bool((transfer.map.weight < 0).any())


def test_options_of_the_hierarchy_arrive():
    average = MGICGraphConv(16, 16, coarse_size=16, min_levels=2, transfer_init="average")
    assert average.hierarchy.widths == (16, 8, 4)
    weight = average.cycle.restrictions[0].map.weight
    assert torch.equal(weight, weight[:1].expand_as(weight))


def test_compiles(graph):
    x, _ = graph
    layer = MGICGraphConv(16, 32, conv=EdgeConv, group_size=8, coarse_size=8).eval()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    dense, table = x.view(2, 20, 16), knn(x.view(2, 20, 16), 4)
    assert oracles.relative_difference(compiled(dense, table), layer(dense, table)) < 1e-6


def test_errors_name_value_and_remedy(graph):
    x, edge_index = graph
    with pytest.raises(ValueError, match=r"in_channels=8 floating-point channels, got shape \(40, 16\)"):
        MGICGraphConv(8, 16)(x, edge_index)
    with pytest.raises(ValueError, match=r"a pair is \(sources, targets\).* got no targets"):
        MGICGraphConv(16, 16)((x, None), edge_index)
    with pytest.raises(ValueError, match="coarse_size must be at least 1"):
        MGICGraphConv(16, 16, coarse_size=0)
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        MGICDynamicEdgeConv(16, 16, k=0)
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'faiss'"):
        MGICDynamicEdgeConv(16, 16, k=3, backend="faiss")
    with pytest.raises(ValueError, match="leave batch out"):
        MGICDynamicEdgeConv(16, 16, k=3)(x.view(2, 20, 16), torch.zeros(40, dtype=torch.long))


@pytest.mark.parametrize("conv", ["SGConv", "SSGConv"])
def test_layers_that_keep_features_are_refused(conv):
    options = {"alpha": 0.5} if conv == "SSGConv" else {}
    with pytest.raises(ValueError, match=f"{conv} with cached=True keeps the features.* leave cached out"):
        MGICGraphConv(16, 16, conv=conv, K=2, cached=True, group_size=8, coarse_size=8, **options)
    MGICGraphConv(16, 16, conv=conv, K=2, group_size=8, coarse_size=8, **options)
    MGICGraphConv(16, 16, conv="GCNConv", cached=True, group_size=8, coarse_size=8)


def test_edge_features_of_the_nodes_width_need_a_map(graph):
    x, edge_index = graph
    features, sizes = torch.randn(edge_index.size(1), 16), {"group_size": 8, "coarse_size": 8}
    with pytest.raises(ValueError, match=r"GENConv refused its arguments on a level: .* so give edge_dim="):
        MGICGraphConv(16, 16, "GENConv", norm=None, **sizes)(x, edge_index, features)
    layer = MGICGraphConv(16, 16, "GENConv", norm=None, edge_dim=16, **sizes)
    assert layer(x, edge_index, features).shape == (40, 16)


def test_reset_and_repr():
    torch.manual_seed(0)
    layer = MGICGraphConv(16, 64, group_size=16, coarse_size=16)
    assert repr(layer) == (
        "MGICGraphConv(16, 64, conv=SAGEConv, ChannelHierarchy(64 in 4 groups -> 32 in 2 groups -> 16 dense))"
    )
    before = {
        name: p.clone() for name, p in layer.named_parameters() if name.endswith("weight") and p.dim() > 1
    }
    layer.reset_parameters()
    assert all(not torch.equal(p, before[name]) for name, p in layer.named_parameters() if name in before)
