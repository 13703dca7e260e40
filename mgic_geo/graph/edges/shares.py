"""Softmax and maximum over the edges of each node, with gradients in as few passes over edges × channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgic_geo.core.twice import must_use_torch
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.sums import gather_at_edges, segment_sum, total
from mgic_geo.native import applies, run

__all__ = ["edge_max", "leaky_product", "near", "softmax", "softmax_sum", "softplus"]

_RANGE = 40.0  # exponentials of values that differ by less are far from underflow


def softmax(edges: EdgeCSR, scores: Tensor) -> Tensor:
    """Softmax of scores (E, K) over the edges of each target."""
    return _Softmax.apply(scores, edges)  # type: ignore[return-value]


def softmax_sum(edges: EdgeCSR, values: Tensor, t: float = 1.0) -> Tensor:
    """Sum of (E, C) at each target, weighed by the softmax of t times themselves: (targets, C)."""
    return _SoftmaxSum.apply(values, t, edges)  # type: ignore[return-value]


def edge_max(edges: EdgeCSR, values: Tensor) -> Tensor:
    """The largest of (E, C) at each target, 0 without edges; those that attain it share the gradient."""
    return _Maximum.apply(values, edges)  # type: ignore[return-value]


def leaky_product(x: Tensor, att: Tensor, slope: float) -> Tensor:
    """Products (E, H) of leaky rectified features (E, H · C) with a vector (H, C) for each head."""
    return _LeakyProduct.apply(x, att, slope)  # type: ignore[return-value]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), as ``F.softplus``, whose logarithm is no vector code on a CPU."""
    return _Softplus.apply(x)  # type: ignore[return-value]


def near(values: Tensor) -> Tensor | None:
    """The largest of all values, or None where they lie too far apart for one shift of exponentials."""
    if not values.numel():
        return values.new_zeros(())
    low, high = torch.aminmax(values.detach())
    return high if bool(high - low < _RANGE) else None


def _loops(scores: Tensor) -> bool:
    """Whether compiled loops serve for scores (E, K)."""
    return applies(scores) and scores.size(1) > 0 and scores.size(1) % 16 == 0


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        ctx.edges = edges
        if _loops(scores):
            scores, out = scores.contiguous(), torch.empty_like(scores, memory_format=torch.contiguous_format)
            run("edge_softmax", scores, edges.targets, scores.size(1), edges.ptr, edges.edges, out)
            ctx.save_for_backward(out)
            return out
        largest = torch.sparse.mm(edges.rows(scores), scores.contiguous(), "amax")
        out = (scores - largest.index_select(0, edges.target)).exp_()
        out = out.div_(segment_sum(out, edges.edges, edges.ptr).index_select(0, edges.target))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (out,) = ctx.saved_tensors
        edges = ctx.edges
        if _loops(out) and not must_use_torch(grad):
            grad_x = torch.empty_like(out)
            sizes = edges.targets, out.size(1)
            run("edge_softmax_grad", grad.contiguous(), out, *sizes, edges.ptr, edges.edges, grad_x)
            return grad_x, None
        weighed = out * grad
        return weighed - out * gather_at_edges(edges, total(edges, weighed)), None


class _SoftmaxSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, t: float, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        ctx.edges, ctx.t = edges, t
        scores = values if t == 1 else values * t
        shift = near(scores)
        if shift is None:
            largest = torch.sparse.mm(edges.rows(scores), scores.contiguous(), "amax")
            shift = largest.index_select(0, edges.target)
        share = (scores - shift).exp_()
        sums = segment_sum(share, edges.edges, edges.ptr).masked_fill_((edges.degree == 0).unsqueeze(1), 1)
        out = segment_sum(share * values, edges.edges, edges.ptr).div_(sums)
        ctx.save_for_backward(values, share, sums, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        values, share, sums, out = ctx.saved_tensors
        edges, t = ctx.edges, ctx.t
        if torch.is_grad_enabled():  # in terms of the input, for the next derivative
            share = softmax(edges, values * t)
            out = total(edges, share * values)
            slope = 1 + t * (values - gather_at_edges(edges, out))
            return share * slope * gather_at_edges(edges, grad), None, None
        slope = grad / sums
        fixed = slope * (1 - t * out)
        both = torch.addcmul(gather_at_edges(edges, fixed), values, gather_at_edges(edges, slope), value=t)
        return both.mul_(share), None, None


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        out = torch.sparse.mm(edges.rows(values), values.contiguous(), "amax")
        ctx.edges = edges
        ctx.save_for_backward(values, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        values, out = ctx.saved_tensors
        edges = ctx.edges
        attains = out.detach().index_select(0, edges.target).eq_(values.detach())
        # torch starts from zero, and counts that among the edges where it is the maximum.
        count = segment_sum(attains, edges.edges, edges.ptr) + (out == 0)
        share = gather_at_edges(edges, grad / count.clamp_(min=1))
        return (attains * share if torch.is_grad_enabled() else share.mul_(attains)), None


class _LeakyProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, att: Tensor, slope: float) -> Tensor:  # type: ignore[override]
        ctx.slope = slope
        ctx.save_for_backward(x, att)
        products = F.leaky_relu(x, slope).mul_(att.reshape(-1)).view(-1, *att.shape)
        return (products @ att.new_ones(att.size(1), 1)).squeeze(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, att = ctx.saved_tensors
        upstream = (grad.unsqueeze(2) * att).flatten(1)
        grad_x = torch.ops.aten.leaky_relu_backward(upstream, x, ctx.slope, False)
        grad_att = (F.leaky_relu(x, ctx.slope).view(-1, *att.shape) * grad.unsqueeze(2)).sum(0)
        return grad_x, grad_att, None


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        e = x.abs().neg_().exp_()
        # log(1 + e) = 2 artanh(e / (2 + e)), to rounding for small e, too
        return e.div_(e + 2).atanh_().mul_(2).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x.sigmoid()
