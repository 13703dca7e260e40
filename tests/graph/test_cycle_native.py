import copy
import pickle

import compiled
import cycles
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from mgic_geo import EdgeConv, GroupedLinear, MGICDynamicEdgeConv, MGICGraphConv, knn
from mgic_geo.core import MGICBlock, Prolongation, Restriction, norm_native
from mgic_geo.graph import graph_cycle
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.graph_block import GraphBlock
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import plain_torch

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(norm_native)


@pytest.fixture
def asked(monkeypatch):
    """Of each cycle so far whether it was one step."""
    found = []

    def watched(*args):
        out = compiled_cycle(*args)
        found.append(out is not None)
        return out

    monkeypatch.setattr(graph_cycle, "compiled_cycle", watched)
    return found


def graph():
    return cycles.graph_of(2, 30, 5)


def assert_as_plain(module, x, graph):
    """What comes out, where it comes from, and what the layer learns of its batches; loosely."""
    ours = compiled.outcome(lambda module, x: module(x, graph), module, [x])
    with plain_torch():
        plain = compiled.outcome(lambda module, x: module(x, graph), module, [x])
    assert ours.keys() == plain.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-3, atol=1e-2, equal_nan=True)


def assert_declines(module, x, graph):
    state = copy.deepcopy(module.state_dict())
    assert compiled_cycle(module.shortcut, module.cycle, x, graph) is None
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert_as_plain(module, x, graph)


def test_layers_take_it(asked, monkeypatch):
    """By default, with any form of a k-NN graph, where there is enough to do."""
    monkeypatch.setattr(norm_native, "_LEAST", 2**15)
    x, module = cycles.rows(2000, 64), MGICGraphConv(64, 128, EdgeConv)
    table = knn(x.view(2, 1000, 64), 10)
    neighbors = Neighbors.from_table(table)
    found = [
        copy.deepcopy(module)(*inputs)
        for inputs in ((x, neighbors), (x, neighbors.edge_index), (x.view(2, 1000, 64), table))
    ]
    assert asked == [True] * 3
    for out in found:
        assert torch.equal(out.view(2000, 128), found[0])
    with plain_torch():
        torch.testing.assert_close(copy.deepcopy(module)(x, neighbors), found[0], rtol=1e-4, atol=1e-4)
    asked.clear()
    dynamic = MGICDynamicEdgeConv(64, 128, 10)
    dynamic.load_state_dict(module.state_dict())
    assert torch.equal(dynamic(x.view(2, 1000, 64)).view(2000, 128), found[0])
    module(x[:200].contiguous(), cycles.graph_of(1, 200, 10))  # too little
    assert asked == [True, False]


@pytest.mark.parametrize(
    "options",
    [
        {}, {"act": None}, {"act": nn.LeakyReLU(0.2)}, {"min_levels": 2}, {"group_size": 32},
        {"norm": lambda width: nn.BatchNorm1d(width, momentum=None)}, {"flow": "target_to_source"},
        {"norm": lambda width: nn.BatchNorm1d(width, track_running_stats=False)}, {"in_channels": -1},
    ],
)  # fmt: skip
def test_options_that_it_takes(options, asked):
    module = MGICGraphConv(**{"in_channels": 16, "out_channels": 64, "conv": EdgeConv, **options})
    x = cycles.rows(60, 16)
    module(x, graph())
    assert asked == [True]
    assert_as_plain(module, x, graph())


@pytest.mark.parametrize(
    "options",
    [
        {"act": "elu"}, {"act": "tanh"}, {"act": nn.LeakyReLU(-0.2)}, {"act_first": True}, {"bias": True},
        {"norm": None}, {"norm": "layer_norm"}, {"correction_norm": None}, {"correction_norm": "layer_norm"},
        {"group_size": 8}, {"coarse_size": 8}, {"in_channels": 12}, {"out_channels": 72},
        {"norm": lambda width: nn.BatchNorm1d(width, affine=False)},
        {"conv": lambda *sizes, **_: EdgeConv(*sizes, norm=None, act="relu")},
    ],
)  # fmt: skip
def test_options_that_decline(options):
    module = MGICGraphConv(**{"in_channels": 16, "out_channels": 64, "conv": EdgeConv, **options})
    assert_declines(module, cycles.rows(60, module.in_channels), graph())


NAMES = [name for name, part in cycles.layer(16).named_modules() if name and type(part) is not nn.ModuleList]
WEIGHTS = [name for name in NAMES if name.endswith(("lin", "map", "norm", "norms.0", "shortcut"))]


@pytest.mark.parametrize("name", NAMES)
def test_hooks_are_heard(name, asked):
    module, heard = cycles.layer(16), []
    part = module.get_submodule(name)
    if name.endswith("lin"):  # whose weight alone is read
        part.register_forward_hook(lambda *_: heard.append(1))
        assert_declines(module, cycles.rows(60, 16), graph())
        return
    for register in (
        part.register_forward_hook, part.register_forward_pre_hook, part.register_full_backward_hook,
        part.register_full_backward_pre_hook,
    ):  # fmt: skip
        handle = register(lambda *_: heard.append(1))
        module(cycles.rows(60, 16).requires_grad_(), graph()).sum().backward()
        assert (asked.pop(), len(heard)) == (False, 1)
        heard.clear()
        handle.remove()
    forward = part.forward
    part.forward = lambda *args: (heard.append(1), forward(*args))[1]
    module(cycles.rows(60, 16), graph())
    assert (asked.pop(), len(heard)) == (False, 1)
    del part.forward
    assert_as_plain(module, cycles.rows(60, 16), graph())
    module(cycles.rows(60, 16), graph())
    assert asked.pop()


def test_hooks_on_all_modules_are_heard():
    module, heard = cycles.layer(16), []
    handle = nn.modules.module.register_module_forward_hook(lambda part, *_: heard.append(type(part)))
    try:
        assert_declines(module, cycles.rows(60, 16), graph())
    finally:
        handle.remove()
    of_ours = {EdgeConv, GraphBlock, MGICBlock, GroupedLinear, Restriction, Prolongation, nn.BatchNorm1d}
    assert of_ours <= set(heard)


def test_hooks_on_the_layer_itself_may_stay(asked):
    module, heard = cycles.layer(16), []
    module.register_forward_hook(lambda *_: heard.append(1))
    module(cycles.rows(60, 16), graph())
    assert (asked, heard) == ([True], [1])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("lin")])
def test_parts_of_other_classes_decline(name):
    module = cycles.layer(16)
    part = module.get_submodule(name)
    plain = type(part)
    part.__class__ = type("Own", (plain,), {"forward": lambda self, *args: 2 * plain.forward(self, *args)})
    assert_declines(module, cycles.rows(60, 16), graph())


@pytest.mark.parametrize("name", WEIGHTS)
def test_parts_that_do_not_fit_decline(name):
    """Torch's operators then say what is wrong."""
    module = cycles.layer(16)
    module.get_submodule(name).double()
    assert compiled_cycle(module.shortcut, module.cycle, cycles.rows(60, 16), graph()) is None
    module.get_submodule(name).float()
    assert compiled_cycle(module.shortcut, module.cycle, cycles.rows(60, 16), graph()) is not None
    if "norm" in name:
        module.set_submodule(name, nn.BatchNorm2d(module.get_submodule(name).num_features))
        assert compiled_cycle(module.shortcut, module.cycle, cycles.rows(60, 16), graph()) is None


@pytest.mark.parametrize("number", range(4))
def test_statistics_that_rest_decline(number):
    module = cycles.layer(16)
    cycles.norms_of(module)[number % 3].eval()
    assert_declines(module if number < 3 else module.eval(), cycles.rows(60, 16), graph())


def test_another_parametrisation():
    """The weight is made anew each time it is read."""
    module, x = cycles.layer(16), cycles.rows(60, 16)
    for block in module.cycle.blocks:
        parametrizations.weight_norm(block.conv.lin)
    out = compiled_cycle(module.shortcut, module.cycle, x, graph())
    assert out is not None
    assert_as_plain(module, x, graph())
    for part in (module.cycle.restrictions[0], module.cycle.prolongations[0]):
        parametrizations.weight_norm(part.map)
    assert_declines(module, x, graph())


def test_graphs_that_decline():
    module, x, own = cycles.layer(16), cycles.rows(60, 16), graph()
    uneven = torch.stack([torch.randint(60, (200,)), torch.randint(60, (200,))])
    assert_declines(module, x, Neighbors.from_edge_index(uneven, 60))
    assert_declines(module, x, Neighbors(own.rowptr, own.col, 60))  # of a degree that is not told
    assert_declines(module, x, Neighbors(own.rowptr.int(), own.col.int(), 60, degree=5))
    assert_declines(cycles.layer(16, 16, 16, 16), cycles.rows(300, 16), cycles.graph_of(1, 300, 256))
    uneven, short = (own.col, {"clouds": 7}), (own.col[:-5], {})
    for col, options in (uneven, short):
        other = Neighbors(own.rowptr, col, 60, degree=5, **options)
        assert compiled_cycle(module.shortcut, module.cycle, x, other) is None


def test_sources_of_their_own_decline(asked):
    module = MGICGraphConv((16, 16), 64, EdgeConv)
    x = cycles.rows(60, 16)
    assert module((x, x), graph()).shape == (60, 64)
    assert module((cycles.rows(50, 16), x), torch.randint(50, (2, 100))).shape == (60, 64)
    assert asked == []


def test_sizes_are_checked_before_memory_is_read():
    module, x, own = cycles.layer(16), cycles.rows(60, 16), graph()
    with pytest.raises(ValueError, match="graph has 60 source"):
        module(x[:50], own)
    with pytest.raises(ValueError, match="in_channels=16"):
        module(cycles.rows(60, 32), own)
    with pytest.raises(ValueError, match=r"lie in \[0, 60\)"):
        module(x, own.edge_index + 1)
    with pytest.raises(ValueError, match=r"lie in \[0, 30\)"):
        module(x.view(2, 30, 16), cycles.table(2, 30, 5) + 1)
    assert compiled_cycle(module.shortcut, module.cycle, cycles.rows(60, 8), own) is None
    assert compiled_cycle(module.shortcut, module.cycle, x.view(2, 30, 16), own) is None
    assert compiled_cycle(nn.Identity(), module.cycle, x, own) is None


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_another_shape_decline(name):
    module = cycles.layer(16)
    part = module.get_submodule(name)
    rows, *columns = part.weight.shape
    others = [(size, *columns) for size in (rows // 2, 2 * rows)]
    for shape in others + [(rows, size) for own in columns for size in (own // 2, 2 * own)]:
        part.weight = nn.Parameter(torch.ones(shape))
        assert compiled_cycle(module.shortcut, module.cycle, cycles.rows(60, 16), graph()) is None


def test_precision_and_transforms_that_decline():
    x, own, module = cycles.rows(60, 16), graph(), cycles.layer(16)
    double = copy.deepcopy(module).double()
    for wide, features in ((double, x.double()), (module, x.to(torch.bfloat16)), (module, x.double())):
        assert compiled_cycle(wide.shortcut, wide.cycle, features, own) is None
    compiled.assert_declines(lambda: double(x.double(), own))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(lambda: module(x, own))
    with FlopCounterMode(display=False):
        compiled.assert_declines(lambda: module(x, own))
    untracked = MGICGraphConv(
        16, 64, EdgeConv, norm=lambda width: nn.BatchNorm1d(width, track_running_stats=False)
    )
    step = lambda x: untracked(x, own)  # noqa: E731
    compiled.assert_declines(lambda: torch.func.jvp(step, (x,), (torch.ones_like(x),)))
    compiled.assert_declines(lambda: torch.func.grad(lambda x: step(x).sum())(x))
    compiled.assert_declines(lambda: torch.func.vmap(step)(torch.stack([x, 2 * x])))
    weights = dict(untracked.named_parameters())
    compiled.assert_declines(
        lambda: torch.func.grad(lambda w: torch.func.functional_call(untracked, w, (x, own)).sum())(weights)[
            "shortcut.weight"
        ]
    )
    with torch.autograd.forward_ad.dual_level():
        compiled.assert_declines(lambda: step(x))
    with compiled.counted() as calls:
        expected = step(x)
        torch.testing.assert_close(torch.func.functional_call(untracked, weights, (x, own)), expected)
    assert calls


def test_code_that_is_compiled_declines():
    module, clouds = (
        MGICGraphConv(16, 64, EdgeConv),
        (cycles.rows(60, 16).view(2, 30, 16), cycles.table(2, 30, 5)),
    )
    expected = module(*clouds)
    found = compiled.assert_declines(torch.compile(module, backend="eager", fullgraph=True), *clouds)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_copies_and_pickles_after_use():
    x, own, module = cycles.rows(60, 16), graph(), cycles.layer(16)
    module(x, own).sum().backward()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x, own), module(x, own))
