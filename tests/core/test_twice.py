import compiled
import torch

from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.native import plain_torch


def test_gradients_that_can_be_differentiated():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, requires_grad=True)
    grad = torch.randn(5, requires_grad=True)
    first, none, second = gradients(lambda a, _, b: a.pow(3) * b, (a, None, b), grad)
    assert none is None
    torch.testing.assert_close(first, 3 * a.square() * b * grad)
    torch.testing.assert_close(second, a.pow(3) * grad)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), a)[0], 6 * a * b * grad)


def test_the_same_tensor_twice_and_tensors_not_asked_for():
    a, constant = torch.randn(5, requires_grad=True), torch.randn(5)
    left, right, none = gradients(lambda a, b, c: a * b.square() * c, (a, a, constant), torch.ones(5))
    assert none is None
    torch.testing.assert_close(left, a.square() * constant)
    torch.testing.assert_close(right, 2 * a.square() * constant)


def test_nothing_asked_for():
    assert gradients(lambda a, b: a * b, (torch.ones(3), torch.ones(3)), torch.ones(3)) == (None, None)


def test_no_graph_where_none_is_recorded():
    a = torch.randn(5, requires_grad=True)
    with torch.no_grad():
        (grad,) = gradients(torch.square, (a,), torch.ones(5))
    assert not grad.requires_grad
    torch.testing.assert_close(grad, 2 * a.detach())


@compiled.needed
def test_when_operators_do_it():
    grad = torch.ones(3)
    assert must_use_torch(grad)  # gradients are recorded
    with torch.no_grad():
        assert not must_use_torch(grad)
        assert must_use_torch(grad.double())
        with plain_torch():
            assert must_use_torch(grad)
