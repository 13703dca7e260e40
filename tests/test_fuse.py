"""Fused models compute what the models do, with less."""

import copy
import pickle
import types

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

from mgic_geo import (
    EdgeConv,
    GroupedLinear,
    MGICGraphConv,
    MGICLinear,
    create_model,
    from_pretrained,
    fuse,
    knn_graph,
    list_models,
    replace_convs,
)

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
SMALL = {
    "dgcnn": {"widths": (16, 32), "embedding": 16, "hidden": (16,), "k": 4},
    "mgic_dgcnn": {"widths": (16, 64, 64), "embedding": 16, "hidden": (16,), "k": 4, "coarse_size": 16},
}


def small(name):
    """The model with fewer or narrower blocks, where it has many."""
    if name in SMALL:
        return create_model(name, **SMALL[name])
    if "resnet" in name:
        return create_model(name, depths=(1, 1, 1) if "56" in name else (1, 1, 1, 1))
    return create_model(name, width=0.5)


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, NORMS)]


def settled(model, *inputs):
    """With running statistics of real features, and scales and shifts as training leaves them, and worse."""
    for norm in norms_of(model):
        norm.momentum = None  # the mean over all batches
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        with torch.no_grad():
            norm.weight[::5] *= -1
    with torch.no_grad():
        model.train()(*inputs)
        for norm in norms_of(model):  # so few samples leave some channels next to no variance
            norm.running_var.clamp_(min=norm.running_var.mean())
    return model.eval()


def example(name):
    if "dgcnn" in name:
        return torch.randn(3, 24, 3)
    return torch.randn(2, 3, 64, 64) if "lraspp" in name else torch.randn(4, 3, 32, 32)


@pytest.mark.parametrize("name", list_models())
def test_every_model_computes_the_same(name):
    torch.manual_seed(0)
    x = example(name)
    model = settled(small(name), x)
    fused = fuse(model)
    assert len(norms_of(model)) > len(norms_of(fused))
    with torch.no_grad():
        expected = model(x)
        scale = expected.abs().max()
        assert (fused(x) - expected).abs().max() < 1e-5 * scale
        exact = model.double()(x.double())
        assert (fuse(model)(x.double()) - exact).abs().max() < 1e-10 * scale


@pytest.mark.parametrize("name", ["mgic_dgcnn", "dgcnn", "mgic_resnet56_g8_c16", "mgic_mobilenetv3_small"])
def test_no_normalisation_remains_where_scales_are_positive(name):
    model = small(name)
    assert norms_of(model)
    assert not norms_of(fuse(model))


def test_the_trained_model_is_the_same_in_all_forms():
    torch.manual_seed(0)
    model = from_pretrained("mgic_dgcnn_modelnet10")
    fused = fuse(model)
    clouds = torch.rand(2, 100, 3)
    clouds[:, 50:] = clouds[:, :50]  # every point twice
    for form in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), fuse(fused)):
        torch.testing.assert_close(form(clouds), model(clouds), atol=1e-5, rtol=1e-5)
    far = clouds + 20
    torch.testing.assert_close(fused(far), model(far), atol=1e-4, rtol=1e-4)


def test_graphs_with_isolated_nodes_and_pairs():
    torch.manual_seed(0)
    x, graph = (
        torch.randn(30, 32),
        torch.cat([knn_graph(torch.randn(20, 3), 4), torch.tensor([[29], [3]])], 1),
    )
    layer = MGICGraphConv(32, 32, conv="edge", group_size=8, coarse_size=8, act="leaky_relu")
    for norm in norms_of(settled(layer, x, graph)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # none negative: all of it is folded
    fused = fuse(layer)
    assert not norms_of(fused)
    torch.testing.assert_close(fused(x, edge_index=graph), layer(x, graph), atol=1e-5, rtol=1e-5)
    pair = torch.randn(25, 32), x
    graph = torch.stack([torch.randint(25, (60,)), torch.randint(20, (60,))])
    torch.testing.assert_close(fused(pair, graph), layer(pair, graph), atol=1e-5, rtol=1e-5)
    one = settled(EdgeConv(32, 16), x, torch.stack([graph[1], graph[1].flip(0)]))
    torch.testing.assert_close(fuse(one)(pair, graph), one(pair, graph), atol=1e-5, rtol=1e-5)


def test_other_normalisations_and_layers_stay():
    torch.manual_seed(0)
    x, graph = torch.randn(30, 32), torch.randint(30, (2, 90))
    for layer in (
        MGICGraphConv(32, 32, conv=GCNConv, coarse_size=16),
        MGICGraphConv(32, 32, conv="edge", norm="layer_norm", coarse_size=16),
        MGICGraphConv(32, 32, conv="edge", norm=None, coarse_size=16),
        nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8, track_running_stats=False)),
    ):
        inputs = (x,) if isinstance(layer, nn.Sequential) else (x, graph)
        if layer is not None and not isinstance(layer, nn.Sequential):
            settled(layer, *inputs)
        torch.testing.assert_close(fuse(layer)(*inputs), layer.eval()(*inputs), atol=1e-5, rtol=1e-5)


def test_what_is_shared_or_hooked_stays():
    torch.manual_seed(0)
    x = torch.randn(20, 8)
    first, norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
    twice = settled(nn.Sequential(first, norm, nn.ReLU(), nn.Linear(8, 8), norm), x)
    tied = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), GroupedLinear(8, 8))
    tied[2].weight = tied[0].weight
    hooked = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    hooked[0].register_forward_hook(lambda module, args, out: out.abs())
    for model in (twice, settled(tied, x), settled(hooked, x)):
        fused = fuse(model)
        assert len(norms_of(fused)) == len(norms_of(model)) > 0
        torch.testing.assert_close(fused(x), model(x))


def replace_forward(module, forward):
    """As libraries do that patch modules."""
    module.forward = types.MethodType(forward, module)


def test_what_has_another_forward_stays():
    torch.manual_seed(0)
    x = torch.randn(20, 8)
    layer, norm, whole = (settled(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), x) for _ in range(3))
    replace_forward(layer[0], lambda self, x: type(self).forward(self, x).relu())
    replace_forward(norm[1], lambda self, x: type(self).forward(self, x.relu()))
    replace_forward(whole, lambda self, x: self[1](self[0](x).relu()))
    for model in (layer, norm, whole):
        torch.testing.assert_close(fuse(model)(x), model(x))


@pytest.mark.parametrize("change", ["hook", "forward"])
def test_what_changes_a_correction_stays(change):
    torch.manual_seed(0)
    x = torch.randn(20, 32)
    model = settled(nn.Sequential(MGICLinear(32, 32, 8, 16, norm=nn.BatchNorm1d)), x)
    prolong = model[0].cycle.prolongations[0]
    if change == "hook":
        prolong.register_forward_hook(lambda module, args, out: out.abs())
    else:
        replace_forward(prolong, lambda self, x: type(self).forward(self, x).abs())
    torch.testing.assert_close(fuse(model)(x), model(x))


def test_hooks_of_an_edge_convolutions_parts_run():
    torch.manual_seed(0)
    x, graph = torch.randn(10, 8), torch.randint(10, (2, 40))
    model = settled(EdgeConv(8, 8), x, graph)
    holder = nn.ModuleList([model])
    model.norm.register_forward_pre_hook(lambda module, args: module.bias.data.fill_(3.0))
    torch.testing.assert_close(fuse(holder)[0](x, graph), model(x, graph))


def test_hooks_within_a_cycle_are_called():
    torch.manual_seed(0)
    layer = MGICGraphConv(32, 32, conv="edge", coarse_size=16).eval()
    layer.cycle.blocks[-1].register_forward_hook(lambda module, args, out: 2 * out)
    x, graph = torch.randn(10, 32), torch.randint(10, (2, 40))
    torch.testing.assert_close(fuse(layer)(x, graph), layer(x, graph), atol=1e-5, rtol=1e-5)


def test_a_converted_network_is_fused_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
    x = torch.randn(2, 8, 9, 9)
    replace_convs(model, group_size=8, coarse_size=8)
    settled(model, x)
    assert not norms_of(fuse(model))  # scales of convolutions may be negative
    torch.testing.assert_close(fuse(model)(x), model(x), atol=1e-5, rtol=1e-5)


def test_fused_models_are_not_for_training():
    model = create_model("resnet56", depths=(1, 1, 1))
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    with pytest.raises(RuntimeError, match="train the model it was made of"):
        fused.train()
    assert not fused.eval().fc.training
    assert not any(p.requires_grad for p in fused.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    with pytest.raises(ValueError, match=r"shortcut\.weight is not settled; call the model"):
        fuse(MGICGraphConv(-1, 32))


def test_parts_keep_their_names_and_places():
    torch.manual_seed(0)
    x = torch.randn(20, 8)
    model = settled(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU())), x)
    fused = fuse(model)
    assert [type(part) for part in (fused[0], fused[-1])] == [nn.Linear, nn.Sequential]
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in model.named_modules()]
    assert list(fused.state_dict()) == ["0.weight", "0.bias"]
    torch.testing.assert_close(fused[:2](x), model[:2](x))
    model = create_model("resnet56", depths=(1, 1, 1))
    assert list(dict(fuse(model).named_children())) == list(dict(model.named_children()))


def test_copies_guard_themselves():
    fused = fuse(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
    for form in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), fuse(fused), nn.Sequential(fused)):
        with pytest.raises(RuntimeError, match="train the model it was made of"):
            form.train()
        inner = form[0] if isinstance(form[0], nn.Sequential) else form
        inner[0].train()
        assert form.eval() is form
        assert not inner[0].training
        assert inner is fused or not any(m is n for m in inner.modules() for n in fused.modules())


@pytest.mark.parametrize(
    ("layer", "norm", "right", "wrong"),
    [
        (nn.Linear(8, 8), nn.BatchNorm1d(8), (5, 8), (5, 8, 8)),
        (GroupedLinear(8, 8, 2), nn.BatchNorm1d(8), (5, 8), (5, 8, 8)),
        (nn.Linear(8, 8), nn.BatchNorm2d(8), None, (5, 8, 3, 8)),
        (nn.Linear(8, 8), nn.SyncBatchNorm(8), (5, 8), (5, 8, 8)),
        (nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), (5, 8, 7), (8, 8)),
        (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), (5, 8, 7, 7), None),
        (GroupedLinear(8, 8, 2, channel_dim=1), nn.BatchNorm1d(8), (5, 8, 7), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_inputs_whose_channels_the_norm_takes_elsewhere_are_refused(layer, norm, right, wrong):
    torch.manual_seed(0)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    model = nn.Sequential(layer, norm, nn.ReLU()).eval()
    fused = fuse(model)
    if right is not None:
        x = torch.randn(right)
        torch.testing.assert_close(fused(x), model(x))
    if wrong is not None:
        model(torch.randn(wrong))
        with pytest.raises(ValueError, match=f"into the {type(layer).__name__} ahead .* got shape"):
            fused(torch.randn(wrong))


def test_compiled_models():
    torch.manual_seed(0)
    model = small("mgic_dgcnn").eval()
    clouds = torch.randn(2, 24, 3)
    torch.testing.assert_close(fuse(torch.compile(model))(clouds), model(clouds), atol=1e-5, rtol=1e-5)


def test_a_norm_behind_an_activation_stays():
    torch.manual_seed(0)
    x, edges = torch.randn(30, 32), torch.randint(30, (2, 120))
    layer = MGICGraphConv(32, 64, conv="edge", act_first=True, coarse_size=16)
    layer(x, edges)  # running statistics that are not trivial
    layer.eval()
    torch.testing.assert_close(fuse(layer)(x, edges), layer(x, edges), rtol=1e-5, atol=1e-5)
