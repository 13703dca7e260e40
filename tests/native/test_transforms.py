import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from mgic_geo.native.transforms import followed, in_transform


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
    compiled = torch.compile(lambda x: x + followed(), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), x + 1)


def test_compiled_code_does_not_ask():
    found = torch.compile(lambda x: x + in_transform(), backend="eager", fullgraph=True)(torch.ones(2))
    assert torch.equal(found, torch.ones(2))
