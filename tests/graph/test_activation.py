import pytest
import torch
from torch import nn
from torch_geometric.nn.resolver import swish

from mgic_geo.graph.activation import resolve_act


@pytest.mark.parametrize(
    ("act", "wanted"),
    [("leaky_relu", nn.LeakyReLU), ("LeakyReLU", nn.LeakyReLU), (nn.Tanh, nn.Tanh), (None, nn.Identity)],
)
def test_names_and_classes_make_modules(act, wanted):
    first, second = resolve_act(act), resolve_act(act)
    assert type(first) is type(second) is wanted
    assert first is not second


@pytest.mark.parametrize("act", [nn.ELU(), torch.relu, lambda x: x + 1])
def test_what_computes_stays_as_it_is(act):
    assert resolve_act(act) is act


def test_a_name_may_be_a_functions():
    assert resolve_act("swish") is swish


@pytest.mark.parametrize("act", [3, 0.2, ["relu"], True, int, torch.ones(1)])
def test_all_else_is_refused(act):
    with pytest.raises(ValueError, match=r"act must be a name such as 'relu', .* got .*; give act='relu'"):
        resolve_act(act)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="nonsense"):
        resolve_act("nonsense")
