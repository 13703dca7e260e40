import compiled
import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from mgic_geo.native import applies, plain_torch

pytestmark = compiled.needed


class Own(torch.Tensor):
    pass


def test_plain_tensors_and_parameters():
    x = torch.randn(3, 4)
    assert applies()
    assert applies(x, nn.Parameter(x), None, x.t(), x[0], torch.zeros(0))


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


def test_compiled_code_does_without():
    seen = torch.compile(lambda x: x + (1 if applies(x) else 2), backend="eager", fullgraph=True)(
        torch.zeros(2)
    )
    assert torch.equal(seen, torch.full((2,), 2.0))
