"""A cycle over EdgeConv levels with its gradient, each way one call of ``native/cycle.c``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mgic_geo.core import norm_native
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.graph import edge_native
from mgic_geo.graph.edge_maps import both_maps
from mgic_geo.native import run

__all__ = ["Level", "Plan", "cycle_step"]

_PIECE = 256
"""Rows of a cloud with sums of their own; the loops know the same number."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a cycle, and all else in it that is no tensor.

    Args:
        clouds: Number of clouds.
        size: Nodes of each.
        degree: Neighbours of a node.
        widths: Channels of each level, the finest first.
        groups: Their groups.
        slopes: Of each level's activation, below zero.
        eps: Of each level's normalisation.
        correction_eps: Of each correction's normalisation.
        ahead: Groups of a map from the input to the finest level, 0 where there is none.
    """

    clouds: int
    size: int
    degree: int
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    slopes: tuple[float, ...]
    eps: tuple[float, ...]
    correction_eps: tuple[float, ...]
    ahead: int

    def integers(self, channels: int) -> Tensor:
        """What the loops have to know, for an input of so many channels."""
        sizes = self.clouds, self.size, self.degree, len(self.widths), self.ahead, channels
        return torch.tensor([*sizes, *self.widths, *self.groups], device="cpu")

    def reals(self) -> Tensor:
        """Likewise."""
        rows = zip(self.slopes, self.eps, (*self.correction_eps, 0.0), strict=True)
        return torch.tensor([value for row in rows for value in row], dtype=torch.float32, device="cpu")

    def panels(self, *widths: int) -> int:
        """Values of features in panels of 16 channels, with a node more in each."""
        return self.clouds * (self.size + 1) * sum(widths)

    def kept(self, x: Tensor) -> list[Tensor]:
        """Memory for what the gradient needs.

        That is of all levels features, but for those of the finest one if they are the input; what comes
        before the normalisation; the ranks of the neighbours that attain the maxima; the change, but of the
        finest one; and means and variances.
        """
        down = self.widths if self.ahead else self.widths[1:]
        moments = 2 * sum(self.widths) + 2 * sum(self.widths[:-1]) + sum(self.widths[1:])
        sizes = self.panels(*down), self.panels(*self.widths), self.panels(*self.widths[1:]), moments
        nodes, z, change, moments = (x.new_empty(size) for size in sizes)
        return [nodes, z, x.new_empty(z.numel(), dtype=torch.uint8), change, moments]

    def scratch(self, x: Tensor, params: int) -> list[Tensor]:
        """Memory to work with: for small matrices, and for what threads, clouds, pieces and shares add up."""
        pieces = self.clouds * -(-self.size // _PIECE)
        of_thread, of_share, of_piece, down = 0, 0, 0, 0
        for j, (width, groups) in enumerate(zip(self.widths, self.groups, strict=True)):
            group, coarse = width // groups, self.widths[j + 1] if j + 1 < len(self.widths) else 0
            half = coarse // groups
            of_share = max(of_share, width * (2 * group + 1 + half) + groups * half * half)
            of_piece = max(of_piece, 2 * width + coarse)
            sizes = self.clouds, self.size, groups, group, group, self.degree
            of_thread = max(of_thread, edge_native.scratch(sizes))
            down += coarse * group
        down += self.widths[0] * x.size(1) // self.ahead if self.ahead else 0
        shared = min(self.clouds, edge_native.SHARES) * of_share
        convolve = torch.get_num_threads() * of_thread + max(shared, self.clouds * 2 * max(self.widths))
        work = max(convolve, pieces * of_piece, min(pieces, edge_native.SHARES) * down)
        return [x.new_empty(8 * params), x.new_empty(work)]

    def moments(self, values: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Mean and variance ahead of each level's normalisation, and of each correction's."""
        rest, levels, corrections = values, [], []
        for j, width in enumerate(self.widths):
            counts = [width] * 2 if j + 1 == len(self.widths) else [*[width] * 4, self.widths[j + 1]]
            mean, var, *others = rest[: sum(counts)].split(counts)
            levels.append((mean, var))
            if others:
                corrections.append((others[0], others[1]))
            rest = rest[sum(counts) :]
        return levels, corrections

    def ranks(self, best: Tensor) -> Iterator[Tensor]:
        """The ranks (N, C) of each level, from panels."""
        parts = best.split([self.panels(width) for width in self.widths])
        for width, part in zip(self.widths, parts, strict=True):
            panels = part.view(self.clouds, width // 16, self.size + 1, 16)[:, :, : self.size]
            yield panels.transpose(1, 2).reshape(self.clouds * self.size, width)


@dataclass
class Level:
    """What a level learns, and the step from it to the next coarser one, which the coarsest has not.

    Attributes:
        conv: (C, 2 · C / groups) of the EdgeConv.
        weight: (C,) of the normalisation.
        bias: (C,) likewise.
        step: The restriction's weight, the prolongation's, then weight and bias of the correction.
    """

    conv: Tensor
    weight: Tensor
    bias: Tensor
    step: Sequence[Tensor] = ()


def cycle_step(
    plan: Plan, x: Tensor, col: Tensor, shortcut: Tensor | None, levels: Sequence[Level]
) -> tuple[Tensor, Tensor]:
    """The cycle, where :func:`mgic_geo.graph.cycle_native.compiled_cycle` says that it may be one step.

    Args:
        plan: Its sizes.
        x: (N, C_in).
        col: (N · degree,) numbers of the neighbours.
        shortcut: (C, C_in / groups), the weight of a map ahead of the cycle, or None.
        levels: What it learns.

    Returns:
        The features (N, C), and means and (biased) variances for :meth:`Plan.moments`.
    """
    params = [part for level in levels for part in (level.conv, level.weight, level.bias, *level.step)]
    return _Cycle.apply(plan, x, col, *([] if shortcut is None else [shortcut]), *params)


class _Cycle(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, plan: Plan, x: Tensor, col: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, col, flat = x.contiguous(), col.contiguous(), torch.cat([part.reshape(-1) for part in params])
        out, kept = x.new_empty(x.size(0), plan.widths[0]), plan.kept(x)
        sizes = plan.integers(x.size(1)), plan.reals()
        run("cycle", *sizes, x, flat, col, *kept, out, *plan.scratch(x, flat.numel()))
        ctx.plan, ctx.sizes = plan, sizes
        ctx.save_for_backward(x, col, flat, *kept, *params)
        ctx.mark_non_differentiable(kept[-1])
        return out, kept[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        plan: Plan = ctx.plan
        x, col, flat, nodes, z, best, change, moments, *params = ctx.saved_tensors
        if must_use_torch(grad):
            ranks = list(plan.ranks(best))

            def plain(x: Tensor, *params: Tensor) -> Tensor:
                return _plain(plan, x, col, params, ranks)

            grad_x, *grad_params = gradients(plain, (x, *params), grad)
            return None, grad_x, None, *grad_params
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        grad_flat, grads = torch.empty_like(flat), torch.empty_like(nodes)
        finest = x.new_empty(0 if plan.ahead else plan.panels(plan.widths[0]))
        between = x.new_empty(plan.panels(*plan.widths[1:3]))
        run(
            "cycle_grad", *ctx.sizes, grad.contiguous(), x, flat, col, nodes, z, best, change, moments,
            grad_x, grad_flat, grads, finest, between, *plan.scratch(x, flat.numel()),
        )  # fmt: skip
        parts = grad_flat.split([part.numel() for part in params])
        # Copies, since gradients that share memory share its version, too, and are kept or saved as a whole.
        grad_params = (own.view_as(part).clone() for own, part in zip(parts, params, strict=True))
        return None, grad_x, None, *grad_params


def _plain(plan: Plan, x: Tensor, col: Tensor, params: Sequence[Tensor], ranks: list[Tensor]) -> Tensor:
    """The cycle in torch's operators, from the neighbours that attain the maxima."""
    rest = list(params)
    xs = [grouped_linear(x, rest.pop(0), None, plan.ahead) if plan.ahead else x]
    counts = [7] * (len(plan.widths) - 1) + [3]
    levels = [[rest.pop(0) for _ in range(count)] for count in counts]
    for level, groups in zip(levels[:-1], plan.groups, strict=False):
        xs.append(grouped_linear(xs[-1], level[3], None, groups))
    y = xs[-1]
    for j in reversed(range(len(xs))):
        conv, weight, bias = levels[j][:3]
        groups, width = plan.groups[j], plan.widths[j]
        if j + 1 < len(xs):
            _, up, scale, shift = levels[j][3:]
            change = grouped_linear(y - xs[j + 1], up, None, groups)
            y = xs[j] + norm_native.plain_norm(change, scale, shift, plan.correction_eps[j], 1.0)
        sizes = plan.clouds, plan.size, groups, width // groups, width // groups, plan.degree
        z = edge_native.plain(y, both_maps(conv, groups), None, col, ranks[j], sizes)
        y = y + norm_native.plain_norm(z, weight, bias, plan.eps[j], plan.slopes[j])
    return y
