"""The definition of a grouped layer as assertions: what it equals, and what a group must not see."""

import copy

import torch
from torch import Tensor

from mgic_geo.graph.grouped.conv import FEATURES, _chunk, _join


def features(inputs):
    """The tensors among the inputs that fall into groups, each a leaf that takes gradients."""
    for name in FEATURES:
        if name in inputs:
            value = inputs[name]
            if isinstance(value, dict):
                inputs[name] = {key: item.clone().requires_grad_() for key, item in value.items()}
                yield from inputs[name].values()
            else:
                inputs[name] = value.clone().requires_grad_()
                yield inputs[name]


def doubled(value):
    """The same in float64 wherever there are floats, as a function of them."""
    if isinstance(value, dict):
        return {key: doubled(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(doubled(item) for item in value)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def tensors(out):
    return [item for item in out.values() if item is not None] if isinstance(out, dict) else [out]


def run(layer, inputs):
    torch.manual_seed(1)  # some layers sample
    return layer(**inputs)


def side_by_side(small, inputs):
    """The definition: small layers next to one another, each on its channels."""
    groups = len(small)
    parts = [
        {name: _chunk(value, groups)[g] if name in FEATURES else value for name, value in inputs.items()}
        for g in range(groups)
    ]
    return _join([run(layer, part) for layer, part in zip(small, parts, strict=True)])


def assert_near(ours, twin, peer=None):
    """Within 1e-5 of the size of the values, or of 1 where they are smaller or cancel.

    Or where rounding is amplified (deviations that nearly vanish, say): as near as the ``peer`` in float32.
    """
    assert ours.shape == twin.shape
    rounding = 0 if peer is None else 3 * (peer - twin).norm()
    assert (ours - twin).norm() <= max(1e-5 * max(1, twin.norm()), rounding)


def named(layers):
    return {(g, name): p for g, layer in enumerate(layers) for name, p in learned(layer).items()}


def learned(layer):
    return {name: p for name, p in layer.named_parameters() if p.requires_grad}


def assert_same(layer, inputs):
    """Outputs, and gradients of inputs and weights, for one random upstream gradient."""
    leaves, weights = list(features(inputs)), learned(layer)
    peer = layer.split()
    twin = [copy.deepcopy(part).double() for part in peer]
    ours = tensors(run(layer, inputs))
    upstream = [torch.randn_like(out) for out in ours]
    gradients = torch.autograd.grad(ours, [*leaves, *weights.values()], upstream, allow_unused=True)
    found = {n: g for n, g in zip(weights, gradients[len(leaves) :], strict=True) if g is not None}
    parts = layer.split_state(found)
    expected, rounded = [
        with_gradients(small, values, leaves, upstream)
        for small, values in ((twin, doubled(inputs)), (peer, inputs))
    ]
    for one in zip([*ours, *gradients[: len(leaves)]], expected[0], rounded[0], strict=True):
        assert_near(*one)
    for (g, name), gradient in expected[1].items():
        if gradient is not None:
            assert_near(parts[g][name], gradient, rounded[1][g, name])
        else:
            assert name not in parts[g] or not parts[g][name].any()


def with_gradients(small, inputs, leaves, upstream):
    """Outputs and the leaves' gradients from small layers side by side, and by name those of weights."""
    weights = named(small)
    out = tensors(side_by_side(small, inputs))
    upstream = [x.to(y.dtype) for x, y in zip(upstream, out, strict=True)]
    gradients = torch.autograd.grad(out, [*leaves, *weights.values()], upstream, allow_unused=True)
    of_weights = dict(zip(weights, gradients[len(leaves) :], strict=True))
    return [*out, *gradients[: len(leaves)]], of_weights


def assert_apart(layer, inputs, groups):
    """The outputs of a group depend on that group's features: all other gradients are exactly zero."""
    leaves = list(features(inputs))
    out = torch.cat([o.unflatten(-1, (groups, -1)) for o in tensors(run(layer, inputs))])
    for g in range(groups):
        gradients = torch.autograd.grad(
            out[..., g, :].sin().sum(), leaves, retain_graph=True, allow_unused=True
        )
        reached = [
            gradient.unflatten(-1, (groups, -1)).abs().transpose(0, -2).flatten(1).amax(1) > 0
            for gradient in gradients
            if isinstance(gradient, Tensor)
        ]
        assert torch.stack(reached).any(0).tolist() == [other == g for other in range(groups)]
