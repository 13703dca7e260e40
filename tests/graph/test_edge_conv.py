import copy

import compiled
import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import EdgeConv, knn, knn_graph
from mgic_geo.graph.neighbors import Neighbors

path = compiled.paths()
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def perturbed(conv, seed=0):
    """Scales of both signs and zero, and running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    if conv.norm is not None:
        width = conv.out_channels
        with torch.no_grad():
            conv.norm.weight.copy_(torch.randn(width, generator=generator))
            conv.norm.weight[:: max(3, width // 3)] = 0
            conv.norm.bias.copy_(torch.randn(width, generator=generator))
            conv.norm.running_mean.copy_(torch.randn(width, generator=generator))
            conv.norm.running_var.copy_(torch.rand(width, generator=generator) + 0.5)
    return conv


def assert_equals_pyg(conv, x, edge_index, tolerance):
    twin = oracles.pyg_edge_conv(conv)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = conv(ours, edge_index), twin(theirs, edge_index)
    assert oracles.relative_difference(out, expected) < tolerance
    upstream = torch.randn(expected.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    out.backward(upstream)
    expected.backward(upstream)
    pairs = {"x": (ours.grad, theirs.grad), "weight": (conv.lin.weight.grad, twin.nn[0].weight.grad)}
    if conv.norm is not None:
        norm = twin.nn[1]
        pairs["scale"] = conv.norm.weight.grad, norm.weight.grad
        pairs["zero scales"] = tuple(grad[conv.norm.weight == 0] for grad in pairs["scale"])
        pairs["shift"] = conv.norm.bias.grad, norm.bias.grad
        pairs["mean"] = conv.norm.running_mean, norm.running_mean
        pairs["variance"] = conv.norm.running_var, norm.running_var
        assert conv.norm.num_batches_tracked == norm.num_batches_tracked
    if conv.lin.bias is not None and (conv.norm is None or not conv.training):
        pairs["bias"] = conv.lin.bias.grad, twin.nn[0].bias.grad
    for name, (a, b) in pairs.items():  # sums that cancel are zero but for rounding, in either order of terms
        assert oracles.relative_difference(a, b, least=1e-6) < tolerance, name


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 40), st.integers(2, 120), st.integers(1, 9), st.integers(1, 12), st.booleans(),
    st.booleans(),
    st.sampled_from(["relu", "leaky_relu", "tanh", None]), st.sampled_from(["batch_norm", None]),
)  # fmt: skip
def test_equals_pyg_on_any_graph(nodes, edges, width_in, width_out, training, bias, act, norm):
    generator = torch.Generator().manual_seed(nodes * edges)
    torch.manual_seed(0)
    x = torch.randn(nodes, width_in, dtype=torch.double, generator=generator)
    # Distinct edges: PyG splits the gradient between two edges that tie, here it goes to one.
    edge_index = torch.randint(nodes, (2, edges), generator=generator).unique(dim=1)
    if edge_index.size(1) < 2:
        return
    conv = perturbed(EdgeConv(width_in, width_out, act=act, norm=norm, bias=bias).double()).train(training)
    # The spread over few edges may nearly vanish, which magnifies rounding.
    assert_equals_pyg(conv, x, edge_index, 1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("loop", [True, False])
def test_equals_pyg_on_point_clouds(dtype, training, loop):
    torch.manual_seed(0)
    x = torch.randn(4 * 200, 16).to(dtype)
    edge_index = knn_graph(x, 10, torch.arange(4).repeat_interleave(200), loop=loop)
    conv = perturbed(EdgeConv(16, 32, act="leaky_relu").to(dtype)).train(training)
    assert_equals_pyg(conv, x, edge_index, TOLERANCE[dtype])


@pytest.mark.parametrize("width", [3, 256])
def test_float32_is_nearer_the_truth_than_edge_by_edge(width):
    """Points far from the origin by a hundred diameters, where both forms cancel; the truth is float64."""
    torch.manual_seed(0)
    x = 100 + torch.rand(2000, width)
    edge_index = knn_graph(x, 10, torch.arange(2).repeat_interleave(1000))
    conv = perturbed(EdgeConv(width, 64))
    truth = oracles.pyg_edge_conv(copy.deepcopy(conv).double())(x.double(), edge_index)
    per_edge = oracles.pyg_edge_conv(conv)(x, edge_index)
    error = oracles.relative_difference(conv(x, edge_index), truth)
    assert error < 5e-5
    assert error < oracles.relative_difference(per_edge, truth) / 3


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_over_steps(momentum):
    torch.manual_seed(0)
    conv = EdgeConv(4, 6)
    twin = oracles.pyg_edge_conv(conv)
    conv.norm.momentum = twin.nn[1].momentum = momentum
    for _ in range(3):
        x = torch.randn(30, 4)
        edge_index = knn_graph(x, 5)
        conv(x, edge_index)
        twin(x, edge_index)
    torch.testing.assert_close(conv.norm.state_dict(), twin.nn[1].state_dict())


def test_in_evaluation_no_graph_of_a_batch_sees_another():
    torch.manual_seed(0)
    x, edge_index = torch.randn(20, 4), torch.randint(20, (2, 60))
    conv = perturbed(EdgeConv(4, 6)).eval()
    alone = conv(x, edge_index)
    for other in (1e6, torch.nan):
        both = torch.cat([x, other * torch.randn(20, 4)]), torch.cat([edge_index, edge_index + 20], 1)
        assert torch.equal(conv(*both)[:20], alone)


def test_evaluation_far_from_the_origin_is_nearly_as_exact_as_edge_by_edge():
    torch.manual_seed(0)
    x = 1e3 + torch.rand(500, 16)
    edge_index = knn_graph(x, 10)
    conv = EdgeConv(16, 32)
    conv.norm.momentum = None
    conv(x, edge_index)
    truth = oracles.pyg_edge_conv(copy.deepcopy(conv.eval()).double())(x.double(), edge_index)
    per_edge = oracles.relative_difference(oracles.pyg_edge_conv(conv)(x, edge_index), truth)
    assert oracles.relative_difference(conv(x, edge_index), truth) < 2 * per_edge


def test_a_table_equals_the_edge_index():
    torch.manual_seed(0)
    x = torch.randn(3, 30, 5)
    conv = EdgeConv(5, 7).eval()
    table = knn(x, 4)
    neighbors = Neighbors.from_table(table)
    dense = conv(x, table)
    assert dense.shape == (3, 30, 7)
    assert torch.equal(conv(x.view(90, 5), neighbors).view(3, 30, 7), dense)
    torch.testing.assert_close(conv(x.view(90, 5), neighbors.edge_index).view(3, 30, 7), dense)


def test_order_of_edges_and_flow_do_not_matter():
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    edge_index = knn_graph(x, 5)
    conv = EdgeConv(4, 6).eval()
    out = conv(x, edge_index)
    assert torch.equal(conv(x, edge_index[:, torch.randperm(100)]), out)
    turned = EdgeConv(4, 6, flow="target_to_source").eval()
    turned.load_state_dict(conv.state_dict())
    assert torch.equal(turned(x, edge_index.flip(0)), out)


def test_bipartite_and_isolated_nodes():
    torch.manual_seed(0)
    conv = EdgeConv(4, 6, bias=True)
    sources, targets = torch.randn(9, 4), torch.randn(5, 4)
    edge_index = torch.stack([torch.randint(9, (12,)), torch.randint(4, (12,))])
    twin = oracles.pyg_edge_conv(conv)
    out = conv((sources, targets), edge_index)
    torch.testing.assert_close(out, twin((sources, targets), edge_index))
    assert torch.equal(out[4], torch.zeros(6))


def test_groups_equal_small_layers():
    torch.manual_seed(0)
    x = torch.randn(40, 8)
    edge_index = knn_graph(x, 5)
    conv = EdgeConv(8, 12, groups=4, bias=True)
    out = conv(x, edge_index)
    for g in range(4):
        small = EdgeConv(2, 3, bias=True)
        small.lin.load_state_dict({name: value.chunk(4)[g] for name, value in conv.lin.state_dict().items()})
        torch.testing.assert_close(small(x[:, 2 * g : 2 * g + 2], edge_index), out[:, 3 * g : 3 * g + 3])


def test_nothing_of_size_edges_times_channels():
    """100 neighbours, yet no tensor saved for backward exceeds a few times nodes × channels."""
    x = torch.randn(1, 300, 16, requires_grad=True)
    table = knn(x, 100)
    conv, sizes = EdgeConv(16, 32), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        conv(x, table).sum().backward()
    assert max(sizes) <= max(300 * 64, 300 * 100)  # node features, or the graph itself
    assert max(sizes) < 300 * 100 * 32 / 10


def test_half_precision_is_near():
    torch.manual_seed(0)
    x = torch.randn(2, 100, 16)
    table, conv = knn(x, 8), EdgeConv(16, 32)
    exact = conv(x, table)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = conv(x, table)
    assert half.dtype == torch.bfloat16
    assert oracles.relative_difference(half.float(), exact) < 2e-2


def test_in_a_pyg_sequential():
    model = pyg.Sequential("x, edge_index", [(EdgeConv(4, 8), "x, edge_index -> x"), nn.Linear(8, 2)])
    x = torch.randn(20, 4)
    assert model(x, knn_graph(x, 3)).shape == (20, 2)


@pytest.mark.parametrize("training", [True, False])
def test_one_graph_for_compile_and_export(training):
    torch.manual_seed(0)
    x = torch.randn(2, 20, 4)
    table, conv = knn(x, 5), perturbed(EdgeConv(4, 6)).train(training)
    compiled = torch.compile(copy.deepcopy(conv), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, table), conv(x, table))
    edge_index = knn_graph(x[0], 5)
    torch.testing.assert_close(compiled(x[0], edge_index), conv(x[0], edge_index))


def test_no_clouds_at_all():
    table = torch.zeros(0, 5, 3, dtype=torch.long)
    assert EdgeConv(4, 8).eval()(torch.zeros(0, 5, 4), table).shape == (0, 5, 8)


def test_shared_statistics_are_refused(monkeypatch):
    conv = nn.SyncBatchNorm.convert_sync_batchnorm(EdgeConv(4, 8))
    x = torch.randn(2, 10, 4)
    assert conv(x, knn(x, 3)).shape == (2, 10, 8)  # one process shares with nobody
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="no statistics between the 2 processes"):
        conv(x, knn(x, 3))


def test_errors_name_value_and_remedy():
    x = torch.randn(2, 10, 4)
    with pytest.raises(ValueError, match=r"in_channels=4 floating-point channels, got shape \(2, 10, 5\)"):
        EdgeConv(4, 4)(torch.randn(2, 10, 5), knn(x, 3))
    with pytest.raises(ValueError, match=r"floating-point channels, got .* of torch\.int64"):
        EdgeConv(4, 4)(x.long(), knn(x, 3))
    with pytest.raises(ValueError, match="graph has 20 source and 20 target nodes, but x has 9 and 9"):
        EdgeConv(4, 4)(x[0, :9], Neighbors.from_table(knn(x, 3)))
    for width in (0, -1):
        with pytest.raises(ValueError, match=f"in_channels must be at least 1, got {width}; no width is"):
            EdgeConv(width, 4)
    with pytest.raises(ValueError, match="groups=4 must divide in_channels=6"):
        EdgeConv(6, 64, groups=4)
    with pytest.raises(TypeError, match="x is a tensor of the nodes' features, got NoneType"):
        EdgeConv(4, 4)((x[0], None), knn_graph(x[0], 3))
    with pytest.raises(ValueError, match=r"dense clouds \(B, N, channels\), got \(4,\)"):
        EdgeConv(4, 4)(x[0, 0], knn_graph(x[0], 3))
    with pytest.raises(ValueError, match=r"act=GELU.*not monotone.*act=None, norm=None"):
        EdgeConv(4, 4, act="gelu")
    with pytest.raises(ValueError, match="not monotone"):
        EdgeConv(4, 4, act=nn.LeakyReLU(-1.0))
    with pytest.raises(ValueError, match="not monotone"):
        EdgeConv(4, 4, act=nn.GELU)
    with pytest.raises(ValueError, match="'batch_norm' or None, got 'layer_norm'"):
        EdgeConv(4, 4, norm="layer_norm")
    with pytest.raises(ValueError, match="flow must be"):
        EdgeConv(4, 4, flow="up")
    with pytest.raises(ValueError, match="at least 2 edges in training, got 1"):
        EdgeConv(4, 4)(torch.randn(2, 4), torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match="groups must divide"):
        EdgeConv(4, 6, groups=4)


def test_a_class_as_activation():
    assert type(EdgeConv(4, 4, act=nn.ELU).act) is nn.ELU


def test_reset_and_repr():
    torch.manual_seed(0)
    conv = perturbed(EdgeConv(4, 8, groups=2))
    before = conv.lin.weight.clone()
    conv.reset_parameters()
    assert not torch.equal(conv.lin.weight, before)
    assert torch.equal(conv.norm.running_mean, torch.zeros(8))
    assert repr(conv) == "EdgeConv(4, 8, groups=2)"
    other = EdgeConv(4, 8, act=None, norm=None, bias=True, flow="target_to_source")
    assert repr(other) == "EdgeConv(4, 8, act=Identity(), norm=None, bias=True, flow='target_to_source')"


@pytest.mark.parametrize("norm", ["batch_norm", None])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("table", [True, False])
def test_second_derivatives(norm, training, table):
    torch.manual_seed(0)
    conv = perturbed(EdgeConv(3, 4, act="elu", norm=norm).double()).train(training)
    if norm:
        nn.init.normal_(conv.norm.weight)  # at zero the maximum could be of any neighbour
    graph = torch.randint(7, (1, 7, 3)) if table else torch.randint(7, (2, 20))
    x = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: conv(x.view(1, 7, 3) if table else x, graph), x)
