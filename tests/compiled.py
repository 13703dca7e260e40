"""Compiled steps beside torch's operators: what the tests of all of them share."""

import copy
import pickle
from contextlib import contextmanager

import oracles
import pytest
import torch

from mgic_geo.native import dispatch, kernels, plain_torch

needed = pytest.mark.skipif(kernels() is None, reason="no C compiler here")


@contextmanager
def counted():
    """A list that grows by one with every call of a kernel."""
    calls, load = [], dispatch.load
    dispatch.load = lambda: (calls.append(1), load())[1]
    try:
        yield calls
    finally:
        dispatch.load = load


def paths():
    """A fixture that runs a module's tests with the loops and, in all processes, without."""

    @pytest.fixture(scope="module", autouse=True, params=["compiled", "torch"])
    def path(request):
        if request.param == "compiled":
            if kernels() is None:
                pytest.skip("no C compiler here")
            yield request.param
            return
        with plain_torch(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("MGIC_NATIVE", "0")  # of processes that a test starts
            yield request.param

    return path


def of_any_size(module):
    """A fixture that lets the loops of ``module`` take inputs too small to be worth the call."""

    @pytest.fixture(scope="module", autouse=True)
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_LEAST", 0)
            yield

    return patched


@contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def outcome(step, module, tensors, dtype=torch.float32):
    """What ``step(module, *tensors)`` gives: values, all gradients, and what it leaves in buffers."""
    module = copy.deepcopy(module).to(dtype)
    leaves = [x.detach().to(dtype).requires_grad_(x.is_floating_point()) for x in tensors]
    found = {"out": step(module, *leaves)}
    upstream = torch.randn(found["out"].shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    inputs = {f"gradient of input {i}": x for i, x in enumerate(leaves)}
    inputs |= {f"gradient of {name}": p for name, p in module.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(found["out"], list(inputs.values()), upstream, allow_unused=True)
    found |= {name: grad for name, grad in zip(inputs, grads, strict=True) if grad is not None}
    found |= {name: buffer.double() for name, buffer in module.named_buffers()}
    return {name: value.detach() for name, value in found.items()}


def assert_as_plain(step, module, tensors, tolerance=1e-5, ignore=(), least=0.0):
    """The loops run, and are as near float64 as torch's operators in float32, or within the tolerance.

    That is relative to each value's own norm; for gradients to at least this share of the largest one's, as
    what a normalisation takes out again has none but by rounding.
    """
    with counted() as calls:
        ours = outcome(step, module, tensors)
    assert calls, "no kernel ran"
    with plain_torch(), counted() as calls:
        plain, exact = (outcome(step, module, tensors, dtype) for dtype in (torch.float32, torch.float64))
    assert not calls
    assert ours.keys() == plain.keys()
    largest = max(float(value.norm()) for name, value in exact.items() if name.startswith("gradient"))
    for name in set(ours) - set(ignore):
        floor = least * largest if name.startswith("gradient") else 0.0
        error, theirs = (
            oracles.relative_difference(a[name].double(), exact[name], floor) for a in (ours, plain)
        )
        assert error <= max(tolerance, 2 * theirs), f"{name}: {error:.2g} against {theirs:.2g}"


def assert_same_on_threads(step, module, tensors):
    """Bit for bit."""
    found = []
    for number in (1, 2, 7):
        with threads(number), counted() as calls:
            found.append(outcome(step, module, tensors))
        assert calls
    for others in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, others[name]), name


def assert_second_derivatives(step, module, tensors, tolerance=1e-4, least=0.0):
    """Of all inputs and parameters, by way of a penalty on the first ones; ``least`` as above."""

    def second(dtype):
        own = copy.deepcopy(module).to(dtype)
        leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
        inputs = [*leaves, *own.parameters()]
        first = torch.autograd.grad(step(own, *leaves).square().sum(), inputs, create_graph=True)
        # Squares alone would not see a first derivative of the wrong sign.
        return torch.autograd.grad(sum((g + g.square()).mean() for g in first), inputs)

    with counted() as calls:
        ours = second(torch.float32)
    assert calls
    with plain_torch():
        exact = second(torch.float64)
    floor = least * max(float(value.norm()) for value in exact)
    for a, b in zip(ours, exact, strict=True):
        assert oracles.relative_difference(a.double(), b, floor) < tolerance


def assert_declines(step, *inputs):
    """No kernel runs, and the result is that of torch's operators; gives it."""
    with counted() as calls:
        ours = step(*inputs)
    assert not calls
    with plain_torch():
        torch.testing.assert_close(ours, step(*inputs), equal_nan=True)
    return ours


def assert_copies(layer, x):
    """Copies and pickles of a layer that has run give what it gives."""
    layer(x).sum().backward()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))
