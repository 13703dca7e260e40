import pytest
from torch import nn

from mgic_geo.core.observed import has_hooks, observed


class Handle:
    """Of a ``forward`` put on the instance."""

    def __init__(self, module):
        self.module, module.forward = module, lambda x: x

    def remove(self):
        del self.module.forward


FORWARD = {
    "hook": lambda m: m.register_forward_hook(lambda *_: None),
    "pre-hook": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "another forward": Handle,
}
BACKWARD = {
    "backward hook": lambda m: m.register_full_backward_hook(lambda *_: None),
    "backward pre-hook": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
}


@pytest.mark.parametrize("name", FORWARD | BACKWARD)
def test_what_hangs_on_a_module(name):
    act = nn.ReLU()
    assert not has_hooks(act, nn.Identity())
    handle = (FORWARD | BACKWARD)[name](act)
    assert has_hooks(nn.Identity(), act)
    assert has_hooks(act, backward=False) is (name in FORWARD)
    assert observed(nn.Identity(), act)
    assert not has_hooks(nn.Sequential(act))  # its parts are not looked at
    handle.remove()
    assert not has_hooks(act)
    assert not observed(act)


def test_hooks_on_all_modules_see_steps_too():
    handle = nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
    assert observed(nn.ReLU())
    assert not has_hooks(nn.ReLU())
    handle.remove()
    assert not observed(nn.ReLU())
