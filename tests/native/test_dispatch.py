import compiled
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from mgic_geo.native import applies, dispatch, followed, in_transform, plain_torch, run


def test_knows_when_a_transform_is_at_work():
    seen, x = [], torch.ones(2)

    def look(x):
        seen.append(in_transform())
        return x.sum()

    look(x.requires_grad_())
    for transformed in (grad(look), vmap(look), lambda x: jvp(look, (x,), (x,))):
        transformed(x.detach())
    with forward_ad.dual_level():
        look(x)
    look(x)
    assert seen == [False, True, True, True, True, False]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_knows_who_follows_operators():
    seen, x = [], torch.ones(2)

    def look(x):
        seen.append(followed())
        return x.sum()

    look(x)
    vmap(look)(x)
    with FlopCounterMode(display=False):
        look(x)
    torch.jit.trace(look, x, check_trace=False)
    look(x)
    assert seen == [False, True, True, True, False]
    traced = torch.compile(lambda x: x + followed(), backend="eager", fullgraph=True)
    assert torch.equal(traced(x), x + 1)


def test_compiled_code_does_not_ask():
    found = torch.compile(lambda x: x + in_transform(), backend="eager", fullgraph=True)(torch.ones(2))
    assert torch.equal(found, torch.ones(2))


class Own(torch.Tensor):
    pass


@compiled.needed
def test_plain_tensors_and_parameters():
    x = torch.randn(3, 4)
    assert applies()
    assert applies(x, nn.Parameter(x), None, x.t(), x[0], torch.zeros(0))


@compiled.needed
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.int32),
        torch.zeros(2, device="meta"),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2).as_subclass(Own),
        torch._neg_view(torch.ones(2)),
        torch._efficientzerotensor(2),
    ],
    ids=["float64", "bfloat16", "integers", "elsewhere", "sparse", "subclass", "lazy sign", "lazy zeros"],
)
def test_other_tensors(x):
    assert not applies(x)
    assert not applies(torch.zeros(2), x)


@compiled.needed
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_where_others_follow_the_operators():
    x, seen = torch.ones(3), []

    def look(x):
        seen.append(applies(x))
        return x.sum()

    look(x)
    for transformed in (grad(look), vmap(look), lambda x: jvp(look, (x,), (x,))):
        transformed(x)
    with FlopCounterMode(display=False):
        look(x)
    torch.jit.trace(look, (x,), check_trace=False)
    with plain_torch():
        look(x)
    look(x)
    assert seen == [True, False, False, False, False, False, False, True]


@compiled.needed
def test_compiled_code_does_without():
    seen = torch.compile(lambda x: x + (1 if applies(x) else 2), backend="eager", fullgraph=True)(
        torch.zeros(2)
    )
    assert torch.equal(seen, torch.full((2,), 2.0))


def inputs(x):
    """Of the mean and variance of rows of 16 channels."""
    mean, var, work = torch.empty(3, 32).unbind()
    return x, x.size(0), 16, mean[:16], var[:16], work


@compiled.needed
def test_writes_into_tensors():
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    x, *sizes, mean, var, work = inputs(x)
    assert run("norm_moments", x, *sizes, mean, var, work) is None
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(var, x.var(0, correction=0))
    with plain_torch():  # a step that has begun is finished
        mean.zero_()
        run("norm_moments", x, *sizes, mean, var, work)
    torch.testing.assert_close(mean, x.mean(0))


@compiled.needed
@pytest.mark.parametrize("x", [torch.randn(16, 20).t(), torch.empty(20, 16, device="meta")])
def test_memory_that_cannot_be_read(x):
    with pytest.raises(AssertionError):
        run("norm_moments", *inputs(x))


@compiled.needed
def test_a_wrong_call():
    with pytest.raises(AttributeError, match="mgic_nothing"):
        run("nothing")
    with pytest.raises(TypeError, match="at least 7 arguments"):
        run("norm_moments", torch.zeros(2, 16))


def test_no_kernels(monkeypatch):
    monkeypatch.setattr(dispatch, "load", lambda: (None, "no compiler"))
    with pytest.raises(RuntimeError, match="there is no kernel norm_moments"):
        run("norm_moments", *inputs(torch.zeros(2, 16)))
