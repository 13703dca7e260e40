"""Replacing the blocks and layers of a model by their MGIC forms."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from torch import nn

from mgic_geo.complexity import complexity
from mgic_geo.convert.calls import watch_calls
from mgic_geo.convert.choose import Match, Predicate, chooser
from mgic_geo.convert.forms import Build, Sizes, count, describe, leaving
from mgic_geo.convert.lost import is_frozen
from mgic_geo.convert.project import Calls, capture, project
from mgic_geo.convert.table import Conversion, Row
from mgic_geo.convert.trial import check_model, check_values, named_failures
from mgic_geo.convert.units import Unit, find_units
from mgic_geo.convert.weights_read import watch_weights
from mgic_geo.core import ChannelHierarchy

__all__ = ["replace_convs"]


@overload
def replace_convs(
    model: nn.Module, group_size: int = ..., coarse_size: int = ..., *, dry_run: Literal[True], **options: Any
) -> Conversion: ...
@overload
def replace_convs(
    model: nn.Module,
    group_size: int = ...,
    coarse_size: int = ...,
    *,
    dry_run: Literal[False] = ...,
    **options: Any,
) -> nn.Module: ...
def replace_convs(  # type: ignore[reportInconsistentOverload]  # the options are those below
    model: nn.Module,
    group_size: int = 32,
    coarse_size: int = 64,
    *,
    match: Match = None,
    inputs: Sequence[Any] | Mapping[str, Any] | Any = None,
    dry_run: bool = False,
    init: str | None = None,
    blocks: bool = True,
    skip_ends: bool = True,
    min_levels: int = 0,
    inplace: bool = False,
    seed: int | None = None,
    steps: int = 200,
) -> nn.Module | Conversion:
    r"""Replace the blocks and layers of a model by their multigrid-in-channels forms.

    A residual block (basic, bottleneck or inverted residual: of torchvision, timm or anyone's) becomes its
    MGIC block; elsewhere each dense convolution becomes a :class:`MGICConv2d`, each fully connected layer a
    :class:`MGICLinear`, each PyG layer the same layer on a hierarchy of its channels. Depth-wise and grouped
    layers, normalisations, activations and squeeze-excite's gates stay. What would not have fewer parameters
    is left alone, and so is what would lose something: tied weights, layers held in lists beside the module
    tree, hooks, forwards of one's own, blocks frozen in parts.

    Args:
        model: Any module. Its first and last layers should keep their widths: see ``skip_ends``.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`. A layer with a side no
            wider than that is left alone.
        match: Which modules to replace: name patterns (``"layer4.*"``; what is inside a named module is
            chosen with it), classes of modules likewise, or ``match(name, module) -> bool``. None means all.
        inputs: Example inputs of the model, a tuple or list of its arguments, a dict of named ones, or one
            tensor (of a detector, whose one argument is a list of images, ``([a, b],)``): multiply-adds are
            counted on them, and ``init="project"`` fits to what the layers see of them. A layer whose weight
            something else reads in that run is left alone; without inputs the sources of the modules tell.
        dry_run: Change nothing, return the table of what would be done.
        init: None draws the MGIC weights at the scale of those they replace, and leaves frozen layers alone.
            ``"project"`` fits them to what is replaced, by least squares over its own inputs (Gaussian ones,
            where no ``inputs`` are given), and the table has the relative errors.
        blocks: Replace recognised residual blocks as wholes; else all is done layer by layer.
        skip_ends: Leave the first and the last layer of the model alone.
        min_levels: Coarsen at least this many times.
        inplace: Change ``model`` itself, not a copy. With ``dry_run`` the forms are taken out of it again.
        seed: Draw all random numbers from this seed, and leave the global generators as they are. None
            draws from the global ones, as building a layer does.
        steps: Steps of the projection for each layer.

    Returns:
        The model with MGIC layers, whose ``conversion`` is the table; with ``dry_run``, the
        :class:`Conversion` alone. An optimiser must be made anew: the parameters are others.

    Raises:
        ValueError: If a pattern fits no name, an option is unknown, the model itself is the layer to replace
            in place, it cannot be copied, has a ``conversion`` of its own, or is on the meta device where it
            is to be projected, if the projection of a layer needs inputs that were not given, or if the
            converted model fails on ``inputs`` in a layer that was replaced.
        TypeError: If the model is no module, or it or a part of it is a TorchScript module, or a wrapper that
            keeps a register of its parameters (DistributedDataParallel, FSDP).
        RuntimeError: On ``init="project"`` in inference mode.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.Linear(256, 10))
        >>> replace_convs(model)[2]
        MGICLinear(256, 256, ChannelHierarchy(256 in 8 groups -> 128 in 4 groups -> 64 dense))
    """
    if init not in (None, "project"):
        raise ValueError(f"init must be None or 'project', got {init!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    ChannelHierarchy(1, group_size, coarse_size, min(min_levels, 0))  # names an impossible size
    sizes = Sizes(group_size, coarse_size, min_levels)
    check_model(model)
    if init == "project":
        check_values(model, inputs)
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    given = () if named or inputs is None else inputs if isinstance(inputs, tuple | list) else (inputs,)
    original = None if inplace else model
    if not inplace:
        model = _copied(model)

    with watch_weights(model) as read, watch_calls(model) as seen_calls:
        before = complexity(model, *given, **named) if given or named else None
    parameters = count(model)
    with _seeded(seed, model):
        units = find_units(model, blocks, read, seen_calls, original)
        plan = _plan(units, sizes, chooser(match, model), skip_ends, drawn=init is None)
        new = {unit: made for unit, made, _ in plan if made is not None}
        errors: dict[Unit, float] = {}
        if init == "project":
            seen = {unit: unit.module for unit in new}
            calls: dict[Unit, Calls] = capture(model, given, named, seen) if given or named else {}
            errors = {unit: _projected(unit, made, calls.get(unit), steps) for unit, made in new.items()}
    rows = [
        Row(
            unit.names[0],
            describe(unit.module),
            describe(made) if made is not None else "",
            why,
            (count(unit.module), _count_after(unit, new)),
            error=errors.get(unit),
        )
        for unit, made, why in plan
    ]
    with _installed(model, new, inplace and not dry_run, keep=not dry_run) as model, named_failures(new):
        after = complexity(model, *given, **named) if given or named else None
        parameters = parameters, count(model)
    if before is not None and after is not None:
        costs = ((before.modules[row.name][1], after.modules[row.name][1]) for row in rows)
        rows = [replace(row, multiply_adds=cost) for row, cost in zip(rows, costs, strict=True)]
        totals = before.multiply_adds, after.multiply_adds
    else:
        totals = None
    conversion = Conversion(tuple(rows), parameters, totals)
    if dry_run:
        return conversion
    model.conversion = conversion  # type: ignore[assignment]  # plain data: copied and pickled along
    return model


def _plan(
    units: list[Unit], sizes: Sizes, chosen: Predicate, skip_ends: bool, drawn: bool
) -> list[tuple[Unit, nn.Module | None, str]]:
    """Each unit with its MGIC form, or None and why; ``drawn``: new weights are drawn, and not fitted."""
    ends = dict.fromkeys(units[-1:], "last") | dict.fromkeys(units[:1], "first")
    plan: list[tuple[Unit, nn.Module | None, str]] = []

    def decide(unit: Unit) -> None:
        made, why = None, ""
        if not any(chosen(name, unit.module) for name in unit.names):
            why = "not matched"
        elif isinstance(unit.form, str):
            why = unit.form
        elif skip_ends and unit in ends and not unit.is_block:
            why = f"the {ends[unit]} layer: skip_ends=False replaces it"
        elif drawn and is_frozen(unit.module):
            why = "frozen: new weights would never be trained; init='project' fits them"
        else:
            form = _built(unit.form, sizes)
            if isinstance(form, str):
                why = form
            elif count(form) >= count(unit.module):
                why = f"no gain: its MGIC form has {count(form):,} parameters"
            else:
                made = form
        if made is None and unit.inside and not (skip_ends and unit in ends and not unit.is_block):
            if not unit.is_block:
                plan.append((unit, None, why))  # a PyG layer: the network that it was given is no reason
            for inner in unit.inside:
                decide(inner)
        else:
            plan.append((unit, made, why))

    for unit in units:
        decide(unit)
    return plan


def _built(form: Build, sizes: Sizes) -> nn.Module | str:
    try:
        return form(sizes)
    except ValueError as error:  # a hierarchy of as many levels as were asked for, say, cannot be
        return str(error)


def _projected(unit: Unit, made: nn.Module, calls: Calls | None, steps: int) -> float:
    """The error of one projection, which names the layer if it fails."""
    try:
        return project(made, unit.module, calls, steps)
    except ValueError as error:
        raise ValueError(f"{unit.names[0]!r}: {error}; {leaving(unit.names[0])}") from error


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # tensors amid a graph, locks, files: whatever it is that cannot be copied
        raise ValueError(
            f"the {type(model).__name__} cannot be copied ({error}): use inplace=True"
        ) from error


@contextlib.contextmanager
def _installed(
    model: nn.Module, new: dict[Unit, nn.Module], inplace: bool, keep: bool
) -> Iterator[nn.Module]:
    """The model with the MGIC forms; they leave it again after an error, and unless they are to be kept."""
    kept = False
    try:
        yield _install(model, new, inplace)
        kept = keep
    finally:
        if not kept:
            _install(model, {unit: unit.module for unit in new}, inplace=False)


def _count_after(unit: Unit, new: dict[Unit, nn.Module]) -> int:
    """Learned values of a unit when the MGIC forms are in their places, its own or those inside."""
    if unit in new:
        return count(new[unit])
    return count(unit.module) - sum(count(inner.module) - _count_after(inner, new) for inner in unit.inside)


def _install(model: nn.Module, new: dict[Unit, nn.Module], inplace: bool) -> nn.Module:
    """Put the MGIC forms into their places."""
    for unit, made in new.items():
        for name in unit.names:
            if name:
                model.set_submodule(name, made)
            elif inplace:
                raise ValueError(
                    f"the model is itself the {type(model).__name__} to replace, which cannot happen in "
                    "place; take the result of inplace=False"
                )
            else:
                model = made
    return model


@contextlib.contextmanager
def _seeded(seed: int | None, model: nn.Module) -> Iterator[None]:
    if seed is None:
        yield
        return
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng([device.index for device in devices]):
        torch.manual_seed(seed)
        yield
