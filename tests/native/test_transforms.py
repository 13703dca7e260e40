import torch
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap

from mgic_geo.native.transforms import in_transform


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


def test_compiled_code_does_not_ask():
    found = torch.compile(lambda x: x + in_transform(), backend="eager", fullgraph=True)(torch.ones(2))
    assert torch.equal(found, torch.ones(2))
