"""Messages by compiled loops, beside the same in torch's operators: values, gradients, second derivatives."""

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo.graph.edges import message_native, messages
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.message_native import Kind, Parts
from mgic_geo.graph.edges.scatter import FixedSoftmax

pytestmark = compiled.needed

# Of each kind: the parts it reads, but for the edges' features.
READS = {
    Kind.RELU: ("s0", "w0"),
    Kind.SOFT: ("s0", "w0"),
    Kind.FILM: ("t0", "t1", "s0"),
    Kind.GATE: ("t0", "s0", "s1", "w0", "w1"),
    Kind.CRYSTAL: ("t0", "t1", "s0", "s1", "w0", "w1"),
    Kind.WEIGHED: ("s0", "w0", "factor"),
    Kind.LEAKY: ("t0", "t1", "s0", "w0"),
    Kind.DOT: ("t0", "s0", "w0"),
}
kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)


class Aggregates:
    """As much of a layer as an aggregation asks for."""

    def __init__(self, aggr, module=None):
        self.aggr, self.aggr_module = aggr, module


class Case:
    """Random parts of a kind, and the step that sends them."""

    def __init__(self, kind, targets=9, sources=7, edges=40, channels=48, features=3, width=16, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        source, target = (
            torch.randint(n, (edges,), generator=generator) for n in (sources, max(1, targets - 2))
        )  # the last targets have no edges
        self.kind, self.width = kind, width
        self.edges = EdgeCSR(source, target, sources, targets)
        self.attr = normal(edges, features) if features and kind is not Kind.FILM else None
        shapes = {
            "t0": (targets, channels),
            "t1": (1 if kind is Kind.LEAKY else targets, channels),
            "s0": (sources, channels),
            "s1": (sources, channels),
            "w0": (channels, features),
            "w1": (channels, features),
            "factor": (edges, channels // width),
        }
        self.names = [name for name in READS[kind] if not name.startswith("w") or self.attr is not None]
        self.tensors = [normal(*shapes[name]) for name in self.names]

    def __call__(self, _module, *tensors):
        attr = None if self.attr is None else self.attr.to(tensors[0].dtype)
        parts = Parts(**dict(zip(self.names, tensors, strict=True)), attr=attr)
        if self.kind is Kind.WEIGHED:
            return messages.weighed(self.edges, parts.s0, parts.factor, parts.attr, parts.w0)
        if self.kind in (Kind.LEAKY, Kind.DOT):
            return messages.scores(self.kind, self.edges, parts, parts.s0.size(1) // self.width, 0.2)
        if self.kind is Kind.SOFT:
            return messages.gather(Aggregates("softmax", FixedSoftmax(0.7)), Kind.RELU, self.edges, parts)
        return messages.gather(Aggregates("mean"), self.kind, self.edges, parts)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.sampled_from([16, 48, 64, 80, 160]),
    st.sampled_from([0, 1, 3, 8]), st.sampled_from([8, 16]), st.integers(0, 99),
)  # fmt: skip
@kinds
def test_as_the_operators(kind, targets, sources, edges, channels, features, width, seed):
    case = Case(kind, targets, sources, edges, channels, features, width, seed)
    compiled.assert_as_plain(case, nn.Identity(), case.tensors)


@kinds
@pytest.mark.parametrize("channels", [64, 144, 192])
@pytest.mark.parametrize("features", [0, 3])
def test_same_on_any_number_of_threads(kind, channels, features):
    case = Case(kind, channels=channels, features=features)
    compiled.assert_same_on_threads(case, nn.Identity(), case.tensors)


@kinds
def test_second_derivatives(kind):
    case = Case(kind)
    compiled.assert_second_derivatives(case, nn.Identity(), case.tensors)


@kinds
def test_large_values_stay_finite(kind):
    case = Case(kind)
    large = [300 * x for x in case.tensors]
    compiled.assert_as_plain(case, nn.Identity(), large)


@pytest.mark.parametrize("kind", [Kind.RELU, Kind.SOFT, Kind.FILM, Kind.GATE, Kind.CRYSTAL], ids=str)
def test_what_is_no_number_stays_none(kind):
    case = Case(kind)
    case.tensors[-1][0] = torch.nan  # a row, or a channel of a map
    leaves = [x.requires_grad_() for x in case.tensors]
    with compiled.counted() as calls:
        ours = case(None, *leaves)
    assert calls
    with compiled.plain_torch():
        plain = case(None, *leaves)
    assert plain.isnan().any()
    assert torch.equal(ours.isnan(), plain.isnan())
    for a, b in zip(*(torch.autograd.grad(out.sum(), leaves) for out in (ours, plain)), strict=True):
        assert torch.equal(a.isnan(), b.isnan())


def test_heads_of_several_vectors():
    case = Case(Kind.DOT, channels=96, width=32)
    compiled.assert_as_plain(case, nn.Identity(), case.tensors)


@pytest.mark.parametrize(
    "options",
    [{"channels": 24, "width": 8}, {"features": 9}, {"edges": 0}, {"channels": 48, "width": 12}],
    ids=["channels", "features", "no edges", "heads"],
)
def test_left_to_the_operators(options):
    case = Case(Kind.DOT, **options)
    compiled.assert_declines(lambda: case(None, *case.tensors))


def test_features_with_a_gradient_are_left_to_the_operators():
    case = Case(Kind.RELU)
    case.attr.requires_grad_()
    with compiled.counted() as calls:
        case(None, *case.tensors).sum().backward()
    assert not calls
    assert case.attr.grad.abs().sum() > 0


def test_other_aggregations_are_left_to_the_operators():
    case = Case(Kind.GATE)
    parts = Parts(**dict(zip(case.names, case.tensors, strict=True)), attr=case.attr)
    compiled.assert_declines(lambda: messages.gather(Aggregates("max"), Kind.GATE, case.edges, parts))


def test_parts_of_any_strides():
    case = Case(Kind.CRYSTAL)
    strided = [torch.cat([x, x], 1)[:, : x.size(1)] for x in case.tensors]
    torch.testing.assert_close(case(None, *strided), case(None, *case.tensors))
    assert message_native.fits(case.edges, Parts(s0=strided[2]))
