"""Fitting MGIC layers to the layers they replace, by least squares over the inputs of those."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from torch_geometric.nn import MessagePassing

from mgic_geo.core.linear import MGICLinear
from mgic_geo.graph.self_loops import forget_graphs
from mgic_geo.image.mgic_conv import MGICConv2d

__all__ = ["Calls", "capture", "gaussian", "project"]

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""Arguments with which a layer was called, one entry a call."""

Key = TypeVar("Key", bound=Hashable)


def capture(
    model: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any], modules: Mapping[Key, nn.Module]
) -> dict[Key, Calls]:
    """What each of the modules is called with while the model runs once, in evaluation mode."""
    calls: dict[Key, Calls] = {key: [] for key in modules}
    modes = {module: module.training for module in model.modules()}

    def keep(key: Key) -> Any:
        # Copies: what follows a layer may work in place.
        return lambda _, args, kwargs: calls[key].append(copy.deepcopy((args, kwargs)))

    hooks = [module.register_forward_pre_hook(keep(key), with_kwargs=True) for key, module in modules.items()]
    try:
        with torch.no_grad():
            model.eval()(*inputs, **named)
    finally:
        for hook in hooks:
            hook.remove()
        forget_graphs(model)
        for module, training in modes.items():
            module.training = training
    return calls


def project(new: nn.Module, old: nn.Module, calls: Calls | None = None, steps: int = 200) -> float:
    r"""Fit ``new`` so that it computes what ``old`` computes; both keep their mode.

    Minimised is :math:`\|new(x) - old(x)\|^2` over all weights of all levels, by Adam with a falling step.
    The last map of a linear layer, its finest level or what widens behind it, is solved for before and after:
    least squares group by group, exact where the other maps are fixed, drawn towards the weights there are.

    Args:
        new: The MGIC form.
        old: What it stands for, on the same device.
        calls: Arguments to fit to; Gaussian inputs if the list is empty, as a run did not come by, or None.
        steps: Steps of Adam.

    Returns:
        The relative error :math:`\|new(x) - old(x)\| / \|old(x)\|`, over the last quarter of the images or
        rows, which the fit does not see; over all where there are fewer than four, and on graphs.

    Raises:
        ValueError: If a layer cannot run on Gaussian features and a random graph alone.
    """
    given, calls = calls, calls or [(gaussian(new, old), {}) for _ in range(8)]
    linear = new if isinstance(new, MGICLinear | MGICConv2d) else None
    if linear is not None:
        calls = [_batched(linear, *args, **kwargs) for args, kwargs in calls]
    modes = {module: module.training for side in (new, old) for module in side.modules()}
    frozen = [p for p in new.parameters() if not p.requires_grad]
    new.eval().requires_grad_(True)
    forget_graphs(old)
    try:
        with torch.no_grad():
            targets = [old.eval()(*args, **kwargs) for args, kwargs in copy.deepcopy(calls)]
    except Exception as error:  # whatever a forward raises that misses its arguments
        kind, missing = type(old).__name__, "which does not run on random ones"
        if given:
            cause = f"runs the {kind} again on what it was called with, which fails"
        elif given is None:
            cause = f"needs inputs=... of the model for this {kind}, {missing}"
        else:
            cause = f"needs inputs of the model that reach this {kind} in evaluation, {missing}"
        raise ValueError(f"init='project' {cause}: {error!r}") from error
    seen, unseen = _split(calls, targets, on_graph=isinstance(old, MessagePassing))
    half = any(p.dtype == torch.float16 for p in new.parameters())
    fit: Any = copy.deepcopy(new).float() if half else new  # Adam's squares of gradients vanish in float16
    wide = _in_float32(seen) if half else seen
    if linear is not None:
        _solve_last(fit, wide[0], wide[1])
    _take_weights(new, fit)
    start, first = copy.deepcopy(new.state_dict()), _relative_error(new, *unseen)
    _descend(fit, wide[0], wide[1], steps)
    if linear is not None:
        _solve_last(fit, wide[0], wide[1])
    _take_weights(new, fit)
    error = _relative_error(new, *unseen)
    if not error < first:  # too few inputs for so many weights
        new.load_state_dict(start)
        error = first
    for p in frozen:
        p.requires_grad_(False)
    for module, training in modes.items():
        module.training = training
    forget_graphs(old)
    forget_graphs(new)
    return error


def _in_float32(values: Any) -> Any:
    """The same with the floating-point tensors among the values in float32."""
    return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x, values)


def _take_weights(new: nn.Module, fit: nn.Module) -> None:
    """Give ``new`` the weights that were fitted, if those are of a copy."""
    if fit is not new:
        new.load_state_dict(fit.state_dict())


def _batched(new: MGICLinear | MGICConv2d, input: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with one row or image as a batch of one; ``input`` is what torch calls it."""
    return (input.unsqueeze(0) if input.dim() == (1 if isinstance(new, MGICLinear) else 3) else input,), {}


@torch.enable_grad()
def _descend(new: nn.Module, calls: Calls, targets: list[Tensor], steps: int) -> None:
    """Adam on all weights. Batch normalisations see the batch, and keep its statistics in the end."""
    norms = [m for m in new.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
    # Steps in proportion to the weights: levels, transfers and scales differ by orders of magnitude.
    sizes = {p: float(p.detach().square().mean().sqrt()) for p in new.parameters()}
    optimizer = torch.optim.Adam([{"params": [p], "lr": 0.03 * max(s, 0.03)} for p, s in sizes.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        (args, kwargs), target = calls[step % len(calls)], targets[step % len(calls)]
        optimizer.zero_grad()
        loss = (new(*args, **kwargs) - target).square().sum() / target.square().sum().clamp_min(1e-12)
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the calls
    with torch.no_grad():
        for args, kwargs in calls if norms else []:
            new(*args, **kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def _solve_last(new: MGICLinear | MGICConv2d, calls: Calls, targets: list[Tensor]) -> None:
    """Least squares for the last map and the bias, all maps ahead of it fixed."""
    last: Any = new.cycle.blocks[0] if isinstance(new.widen, nn.Identity) else new.widen
    groups, weight = last.groups, last.weight
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    outputs = [new(*args, **kwargs) for args, kwargs in calls]
    hook.remove()
    per_group = weight.size(0) // groups
    products: Tensor | float = 0.0
    residuals: Tensor | float = 0.0
    for z, output, target in zip(features, outputs, targets, strict=True):
        rows = _patches(z, last) if isinstance(last, nn.Conv2d) else z.unsqueeze(0)
        rows = rows.unflatten(-1, (groups, -1)).flatten(0, 1).transpose(0, 1).double()
        rows = F.pad(rows, (0, 1), value=0.0 if new.bias is None else 1.0)
        missing = (target - output).double()
        missing = missing.movedim(1, -1) if isinstance(last, nn.Conv2d) else missing
        missing = missing.reshape(-1, groups, per_group).transpose(0, 1)
        products = products + rows.transpose(1, 2) @ rows
        residuals = residuals + rows.transpose(1, 2) @ missing
    assert isinstance(products, Tensor)
    diagonal = products.diagonal(dim1=1, dim2=2)
    ridge = 1e-4 * diagonal.mean(1, keepdim=True).clamp_min(1e-12) + 0 * diagonal
    change = torch.linalg.solve(products + ridge.diag_embed(), residuals)  # (groups, fan-in + 1, per_group)
    weight += change[:, :-1].transpose(1, 2).reshape(weight.shape).to(weight.dtype)
    if new.bias is not None:
        new.bias += change[:, -1].flatten().to(new.bias.dtype)


def _patches(z: Tensor, conv: nn.Conv2d) -> Tensor:
    """(B, C, H, W) to (B, H W, C kh kw): what the kernel sees at every pixel."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(z, conv._reversed_padding_repeated_twice, mode)
    return F.unfold(padded, conv.kernel_size, conv.dilation).transpose(1, 2)  # type: ignore[arg-type]


def _split(calls: Calls, targets: list[Tensor], on_graph: bool) -> tuple[Any, Any]:
    """Calls and targets to fit, and those to measure the error on."""
    size = min(target.size(0) for target in targets)
    if on_graph or size < 4 or any(len(args) != 1 or kwargs for args, kwargs in calls):
        return (calls, targets), (calls, targets)

    def part(take: slice) -> tuple[Calls, list[Tensor]]:
        return [((args[0][take],), {}) for args, _ in calls], [target[take] for target in targets]

    cut = size - size // 4
    return part(slice(0, cut)), part(slice(cut, None))


@torch.no_grad()
def _relative_error(new: nn.Module, calls: Calls, targets: list[Tensor]) -> float:
    error = scale = 0.0
    for (args, kwargs), target in zip(calls, targets, strict=True):
        error += float((new(*args, **kwargs) - target).double().square().sum())
        scale += float(target.double().square().sum())
    return (error / scale) ** 0.5 if scale else error**0.5


def gaussian(new: Any, old: nn.Module) -> tuple[Tensor, ...]:
    """Random arguments: rows, images, or nodes with eight random neighbours each."""
    like = next(new.parameters())
    options: Any = {"device": like.device, "dtype": like.dtype}
    if isinstance(new, MGICLinear):
        return (torch.randn(max(256, new.in_features), new.in_features, **options),)
    if isinstance(old, MessagePassing):
        nodes = 256
        source = torch.randint(nodes, (8 * nodes,), device=like.device)
        target = torch.arange(nodes, device=like.device).repeat_interleave(8)
        return torch.randn(nodes, new.in_channels, **options), torch.stack([source, target])
    size = max(12, *(2 * k for k in getattr(new, "kernel_size", (3,))))
    return (torch.randn(8, new.in_channels, size, size, **options),)
