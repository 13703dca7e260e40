import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mgic_geo.core.hooks import run_pre_hooks


def test_is_the_weight_of_a_call():
    torch.manual_seed(0)
    linear, other = nn.Linear(4, 3), nn.Linear(4, 3)
    assert run_pre_hooks(linear, torch.ones(1, 4)) is linear
    for module in (linear, other):
        prune.l1_unstructured(module, "weight", 0.5)
    other.load_state_dict(linear.state_dict())
    assert not torch.equal(other.weight, linear.weight)
    assert torch.equal(run_pre_hooks(other).weight, linear.weight)


def test_hooks_run_in_order_and_see_inputs():
    linear, seen = nn.Linear(4, 3), []
    linear.register_forward_pre_hook(lambda *args: seen.append(args))
    linear.register_forward_pre_hook(lambda *args, **kwargs: seen.append(args), with_kwargs=True)
    linear.register_forward_pre_hook(lambda module, args: seen.append("first"), prepend=True)
    x = torch.ones(1, 4)
    run_pre_hooks(linear, x)
    assert seen == ["first", (linear, (x,)), (linear, (x,), {})]


def test_a_hook_may_take_itself_away():
    linear, seen = nn.Linear(4, 3), []

    def once(module, args):
        seen.append(1)
        handle.remove()

    handle = linear.register_forward_pre_hook(once)
    linear.register_forward_pre_hook(lambda *_: seen.append(2))
    for _ in range(2):
        run_pre_hooks(linear)
    assert seen == [1, 2, 2]


def test_what_a_hook_raises_comes_through():
    linear = nn.Linear(4, 3)
    linear.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_pre_hooks(linear)
