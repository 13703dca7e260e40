"""How parameters, multiply-adds and time of a module grow with its width."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mgic_geo.complexity import complexity
from mgic_geo.text_table import markdown
from mgic_geo.timing import Step, clock_by, interleave

__all__ = ["Exponents", "Scaling", "ScalingRow", "scaling"]


class ScalingRow(NamedTuple):
    """Figures of one width; milliseconds of a step are the median over rounds, None where not timed."""

    width: int
    parameters: int
    multiply_adds: int
    milliseconds: float | None


class Exponents(NamedTuple):
    """Of the power laws that fit best; NaN where a figure is 0 somewhere, None where not timed."""

    parameters: float
    multiply_adds: float
    time: float | None


@dataclass(frozen=True, repr=False)
class Scaling:
    """What :func:`scaling` found; ``print`` it for a Markdown table.

    Args:
        rows: One a width, ascending.
        exponents: Slopes of the figures over the width, on logarithmic axes, by least squares over all rows.
        threads: Threads that torch had on the CPU.
        device: Device of the modules.
    """

    rows: tuple[ScalingRow, ...]
    exponents: Exponents
    threads: int
    device: str

    def markdown(self) -> str:
        """The rows as Markdown, the exponents below."""
        timed = self.exponents.time is not None
        head = ["width", "parameters", "multiply-adds", *(["ms"] if timed else [])]
        lines = []
        for row in self.rows:
            ms = [] if row.milliseconds is None else [f"{row.milliseconds:.3g}"]
            lines.append([f"{row.width:,}", f"{row.parameters:,}", f"{row.multiply_adds:,}", *ms])
        lines.append(["exponent", *(f"{value:.2f}" for value in self.exponents if value is not None)])
        return markdown(head, lines, left=0, right="---:")

    def __str__(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        names = ("parameters", "multiply-adds", "time")
        figures = zip(names, self.exponents, strict=True)
        text = ", ".join(f"{name} {value:.2f}" for name, value in figures if value is not None)
        return f"{type(self).__name__}({self.rows[0].width} to {self.rows[-1].width} channels: {text})"


def scaling(
    build: Callable[[int], nn.Module],
    widths: Sequence[int],
    inputs: Callable[[int], Any] | None = None,
    *,
    timed: bool = True,
    backward: bool = True,
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> Scaling:
    r"""Fit figure :math:`\propto` width\ :sup:`exponent` to parameters, multiply-adds and measured time.

    A step is a forward pass in training mode, and the backward pass to parameters and inputs. The widths take
    turns, upwards in one round and downwards in the next, so that a machine that slows down or warms up bends
    no slope; steps that are short are repeated. All widths are in memory together.

    Args:
        build: ``build(width)`` makes the module.
        widths: At least two.
        inputs: ``inputs(width)`` gives what its ``forward`` takes, a tensor or a tuple. None stands for 256
            rows of ``width`` normal features.
        timed: Measure time; without it inputs on the meta device do, see :func:`complexity`.
        backward: Time the backward pass, too.
        rounds: Timings of each width, behind one step that warms up.
        clock: Gives seconds. ``time.process_time`` leaves out what other processes take, on one thread.

    Returns:
        The figures of each width, and the exponents.

    Raises:
        ValueError: On fewer than two widths, or numbers that must be positive and are not.

    Example:
        >>> scaling(lambda width: nn.Linear(width, width, bias=False), [64, 128, 256], timed=False)
        Scaling(64 to 256 channels: parameters 2.00, multiply-adds 2.00)
    """
    widths = sorted(set(widths))
    if len(widths) < 2:
        raise ValueError(f"a slope needs at least two different widths, got {widths}")
    if widths[0] < 1:
        raise ValueError(f"widths must be at least 1, got {widths[0]}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    cases: dict[int, tuple[nn.Module, tuple[Any, ...]]] = {}
    for width in widths:
        given = torch.randn(256, width) if inputs is None else inputs(width)
        cases[width] = build(width).train(), given if isinstance(given, tuple) else (given,)
    counts = {width: complexity(module, *given) for width, (module, given) in cases.items()}
    milliseconds: dict[int, float] = {}
    if timed:
        steps = {width: _step(module, given, backward) for width, (module, given) in cases.items()}
        times = interleave(steps, rounds, clock_by(clock))
        milliseconds = {width: 1e3 * found.median for width, found in times.items()}
    rows = tuple(
        ScalingRow(width, count.parameters, count.multiply_adds, milliseconds.get(width))
        for width, count in counts.items()
    )
    exponents = Exponents(
        _slope(widths, [row.parameters for row in rows]),
        _slope(widths, [row.multiply_adds for row in rows]),
        _slope(widths, list(milliseconds.values())) if timed else None,
    )
    module, given = cases[widths[0]]
    tensors = [*tree_leaves(given), *module.parameters()]
    device = next((x.device.type for x in reversed(tensors) if isinstance(x, Tensor)), "cpu")
    return Scaling(rows, exponents, torch.get_num_threads(), device)


def _step(module: nn.Module, inputs: tuple[Any, ...], backward: bool) -> Step:
    """One forward, and backward, pass, which has ended when the call has; the first call warms up."""
    tensors = (*tree_leaves(inputs), *module.parameters())
    asynchronous = any(isinstance(x, Tensor) and x.is_cuda for x in tensors)
    learns = [x.detach().requires_grad_(backward) if _real(x) else x for x in inputs]
    upstream: list[Tensor] = []

    def step() -> None:
        module.zero_grad()
        for x in learns:
            if isinstance(x, Tensor):
                x.grad = None
        with torch.set_grad_enabled(backward):
            out = [x for x in tree_leaves(module(*learns)) if _real(x) and x.requires_grad]
        if not upstream:
            upstream.extend(map(torch.randn_like, out))
        if out:
            torch.autograd.backward(out, upstream)
        if asynchronous:
            torch.cuda.synchronize()

    return step


def _real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided


def _slope(widths: Sequence[int], values: Sequence[float]) -> float:
    """Least squares on logarithmic axes."""
    if min(values) <= 0:
        return math.nan
    return statistics.linear_regression([math.log(w) for w in widths], [math.log(v) for v in values]).slope
