import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgic_geo import replace_convs
from mgic_geo.convert.held import holders

SIZES = {"group_size": 8, "coarse_size": 8, "skip_ends": False}


class Net(nn.Module):
    """Two layers, of which ``hold`` gives what to keep besides, and ``use`` how to call it."""

    def __init__(self, hold, use):
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)
        object.__setattr__(self, "held", hold(self))
        self.use = use

    def forward(self, x):
        return self.b(self.use(self.held, x))


def closing_over(layer):
    return lambda x: layer(x)


HOLDERS = {
    "list": (lambda net: [net.a], lambda held, x: held[0](x)),
    "nested": (lambda net: {"maps": ({1: net.a},)}, lambda held, x: held["maps"][0][1](x)),
    "alias": (lambda net: net.a, lambda held, x: held(x)),
    "bound": (lambda net: net.a.forward, lambda held, x: held(x)),
    "partial": (lambda net: functools.partial(F.linear, weight=net.a.weight), lambda held, x: held(x)),
    "weights": (lambda net: [net.a.weight], lambda held, x: F.linear(x, held[0])),
    "object": (lambda net: SimpleNamespace(layer=net.a), lambda held, x: held.layer(x)),
    "unregistered": (lambda net: [nn.Sequential(net.a)], lambda held, x: held[0](x)),
    "function": (lambda net: closing_over(net.a), lambda held, x: held(x)),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("hold", "use"), HOLDERS.values(), ids=HOLDERS)
def test_what_others_hold_is_left(hold, use, inplace):
    x = torch.randn(4, 32)
    converted = replace_convs(Net(hold, use), inplace=inplace, **SIZES)
    assert {row.name: row.reason for row in converted.conversion.left} == {
        "a": "it is also held outside the module tree, in Net.held, where it would stay"
    }
    converted(x).sum().backward()
    for name in ("a", "b"):
        if (
            inplace or hold is not HOLDERS["function"][0] or name == "b"
        ):  # a copy's function calls the original
            grads = [p.grad is not None for p in getattr(converted, name).parameters()]
            assert any(grads)


def test_a_function_that_holds_the_whole_model_follows_in_place_only():
    def net():
        return Net(lambda net: lambda x: net.a(x), lambda held, x: held(x))

    assert not replace_convs(net(), inplace=True, **SIZES).conversion.left
    left = replace_convs(net(), **SIZES).conversion.left
    assert [row.name for row in left] == ["a", "b"]


def test_who_holds_what():
    net = Net(HOLDERS["nested"][0], None)
    assert holders(net) == {id(net.a): [(net, "Net.held")]}
    copied = copy.deepcopy(net)
    assert holders(copied, net) == {id(copied.a): [(copied, "Net.held")]}
    net.optimizer = torch.optim.SGD(net.parameters(), 0.1)
    assert id(net.b.weight) not in holders(net)
    closing = copy.deepcopy(full := Net(lambda net: closing_over(net), None))
    assert not holders(full).keys() & {id(full.a), id(full.b)}
    assert {id(closing.a), id(closing.b), id(closing.b.bias)} <= holders(closing, full).keys()


def test_circles_and_empty_cells_end():
    def hold(net):
        circle = [net.a]
        circle.append(circle)

        def function():
            return late

        net.function = function
        if net is None:
            late = None
        return circle

    assert [*holders(net := Net(hold, None))] == [id(net.a)]
