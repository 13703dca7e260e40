"""The definition of a grouped layer as assertions: what it equals, and what a group must not see."""

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


def assert_near(ours, twin):
    """Within 1e-5 of the size of the values, or of 1 where they are smaller or cancel."""
    assert ours.shape == twin.shape
    assert (ours - twin).norm() <= 1e-5 * max(1, twin.norm())


def named(layers):
    return {(g, name): p for g, layer in enumerate(layers) for name, p in learned(layer).items()}


def learned(layer):
    return {name: p for name, p in layer.named_parameters() if p.requires_grad}


def assert_same(layer, inputs):
    """Outputs, and gradients of inputs and weights, for one random upstream gradient."""
    leaves, weights = list(features(inputs)), learned(layer)
    small = layer.split()
    theirs = named(small)
    ours, twins = tensors(run(layer, inputs)), tensors(side_by_side(small, inputs))
    upstream = [torch.randn_like(out) for out in twins]
    gradients = torch.autograd.grad(ours, [*leaves, *weights.values()], upstream, allow_unused=True)
    expected = torch.autograd.grad(twins, [*leaves, *theirs.values()], upstream, allow_unused=True)
    count = len(leaves)
    for a, b in zip([*ours, *gradients[:count]], [*twins, *expected[:count]], strict=True):
        assert_near(a, b)
    found = {n: g for n, g in zip(weights, gradients[count:], strict=True) if g is not None}
    parts = layer.split_state(found)
    for (g, name), gradient in zip(theirs, expected[count:], strict=True):
        if gradient is not None:
            assert_near(parts[g][name], gradient)
        else:
            assert name not in parts[g] or not parts[g][name].any()


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
