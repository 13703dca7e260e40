"""Reductions of edge values by compiled loops, beside torch's operators."""

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo.graph.edges import reduce_native
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.message_native import Parts
from mgic_geo.graph.edges.messages import edge_values
from mgic_geo.graph.edges.reduce_native import Inner
from mgic_geo.graph.edges.shares import edge_max
from mgic_geo.graph.edges.sums import total

pytestmark = compiled.needed
ALL = ("sum", "square", "max", "min")


class Case:
    """Random values of edges, with or without a second map, and the step that reduces them."""

    def __init__(
        self, targets=9, sources=7, edges=70, groups=3, hidden=16, out=32, features=3, inner=True,
        wanted=ALL, rounded=False, seed=0,
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            x = torch.randn(*shape, generator=generator)
            return x.round() if rounded else x  # so that edges tie

        source, target = (
            torch.randint(n, (edges,), generator=generator) for n in (sources, max(1, targets - 2))
        )
        self.edges, self.groups, self.wanted = EdgeCSR(source, target, sources, targets), groups, wanted
        self.attr = normal(edges, features) if features else None
        channels = groups * hidden
        self.tensors = [normal(targets, channels), normal(sources, channels)]
        self.tensors += [normal(channels, features)] if features else []
        self.tensors += [normal(groups * out, hidden), normal(groups * out)] if inner else []
        self.inner = inner

    def parts(self, tensors):
        t0, s0, *rest = tensors
        w0 = rest.pop(0) if self.attr is not None else None
        attr = None if self.attr is None else self.attr.to(t0.dtype)
        return Parts(t0=t0, s0=s0, attr=attr, w0=w0), Inner(*rest, self.groups) if self.inner else None

    def __call__(self, _module, *tensors):
        parts, inner = self.parts(tensors)
        if reduce_native.fits(self.edges, parts, inner):
            found = reduce_native.edge_reduce(self.edges, parts, inner, self.wanted, edge_values)
        else:
            found = reduced(self.edges, edge_values(self.edges, parts, inner), self.wanted)
        return torch.stack(found)


def reduced(edges, values, wanted):
    ways = {
        "sum": lambda: total(edges, values),
        "square": lambda: total(edges, values * values),
        "max": lambda: edge_max(edges, values),
        "min": lambda: -edge_max(edges, -values),
    }
    return [ways[name]() for name in wanted]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 100), st.integers(1, 5), st.sampled_from([16, 32]),
    st.sampled_from([16, 48]), st.sampled_from([0, 1, 3, 8]), st.booleans(),
    st.sampled_from([ALL, ("max",), ("sum",), ("square", "min")]), st.integers(0, 99),
)  # fmt: skip
def test_as_the_operators(targets, sources, edges, groups, hidden, out, features, inner, wanted, seed):
    case = Case(targets, sources, edges, groups, hidden, out, features, inner, wanted, seed=seed)
    compiled.assert_as_plain(case, nn.Identity(), case.tensors)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("name", ["max", "min"])
def test_edges_that_tie_share_the_gradient(name, inner):
    case = Case(inner=inner, wanted=(name,), rounded=True, features=0)
    compiled.assert_as_plain(case, nn.Identity(), case.tensors)
    values = edge_values(case.edges, *case.parts(case.tensors))
    best = reduced(case.edges, values, (name,))[0].index_select(0, case.edges.target)
    ties = total(case.edges, (values == best).float())
    assert (ties > 1).any()
    assert (case(None, *case.tensors) == 0).any()


def of_sources(edges, sources):
    """Sum and maximum of the sources' values at each target, by the loops."""
    return reduce_native.edge_reduce(edges, Parts(s0=sources), None, ("sum", "max"), edge_values)


def test_targets_without_edges_between_others():
    source, target = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([1, 1, 5, 9, 9])
    edges, sources = EdgeCSR(source, target, 3, 12), torch.arange(48.0).view(3, 16)
    expected = reduced(edges, sources[source], ("sum", "max"))
    assert all(map(torch.equal, of_sources(edges, sources), expected))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_maximum_with_nan_is_nan(place):
    edges, sources = EdgeCSR(torch.arange(3), torch.zeros(3).long(), 3, 1), torch.arange(48.0).view(3, 16)
    sources[place] = torch.nan
    assert all(bool(found.isnan().all()) for found in of_sources(edges, sources))


@pytest.mark.parametrize("inner", [True, False])
def test_same_on_any_number_of_threads(inner):
    case = Case(inner=inner, groups=5)
    compiled.assert_same_on_threads(case, nn.Identity(), case.tensors)


@pytest.mark.parametrize("inner", [True, False])
def test_second_derivatives(inner):
    case = Case(inner=inner)
    compiled.assert_second_derivatives(case, nn.Identity(), case.tensors)


def test_without_targets_or_bias():
    case = Case(features=0)

    def step(_module, s0, weight):
        parts, inner = Parts(s0=s0), Inner(weight, None, case.groups)
        if not reduce_native.fits(case.edges, parts, inner):
            return reduced(case.edges, edge_values(case.edges, parts, inner), ("max",))[0]
        return reduce_native.edge_reduce(case.edges, parts, inner, ("max",), edge_values)[0]

    compiled.assert_as_plain(step, nn.Identity(), case.tensors[1:3])


@pytest.mark.parametrize("options", [{"hidden": 8}, {"out": 24}, {"features": 9}, {"edges": 0}], ids=str)
def test_left_to_the_operators(options):
    case = Case(**options)
    compiled.assert_declines(lambda: case(None, *case.tensors))
