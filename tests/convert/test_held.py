import copy
import functools
import weakref
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
    of_original = hold is HOLDERS["function"][0] and not inplace  # whose functions a copy goes on to call
    where = "Net.held of the original (inplace=True may help)" if of_original else "Net.held"
    assert {row.name: row.reason for row in converted.conversion.left} == {
        "a": f"it is also held outside the module tree, in {where}, where it would stay"
    }
    converted(x).sum().backward()
    for layer in [converted.b] if of_original else [converted.a, converted.b]:
        assert any(p.grad is not None for p in layer.parameters())


def test_a_function_that_holds_the_whole_model_follows_in_place_only():
    def net():
        return Net(lambda net: lambda x: net.a(x), lambda held, x: held(x))

    assert not replace_convs(net(), inplace=True, **SIZES).conversion.left
    left = replace_convs(net(), **SIZES).conversion.left
    assert [row.name for row in left] == ["a", "b"]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_function_that_reads_settings_of_the_model_holds_nothing(inplace):
    def hold(net):
        net.slope = 0.1
        return lambda x: F.leaky_relu(x, net.slope)

    net = Net(hold, lambda held, x: held(x))
    converted = replace_convs(net, inputs=torch.randn(4, 32), inplace=inplace, **SIZES)
    assert not converted.conversion.left


def test_weak_references_hold_nothing():
    def hold(net):
        object.__setattr__(net.a, "parent", weakref.proxy(net))  # as no part of it
        return [weakref.proxy(nn.Linear(2, 2)), weakref.ref(net.a)]  # the first one is dead

    net = replace_convs(Net(hold, lambda _, x: x), inplace=True, **SIZES)
    assert not net.conversion.left


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
