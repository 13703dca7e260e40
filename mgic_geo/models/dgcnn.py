"""The point network: DGCNN with k-NN graphs rebuilt from the features (paper, section 5.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import global_max_pool, global_mean_pool

from mgic_geo.core import GroupedLinear
from mgic_geo.core.norm_act import norm_act
from mgic_geo.core.observed import observed
from mgic_geo.core.pointwise import added_linear
from mgic_geo.graph.activation import Act, resolve_act
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.grouped import grouped, resolve_conv
from mgic_geo.graph.knn import check_backend, check_batch, check_k
from mgic_geo.graph.mgic_conv import MGICGraphConv, dynamic_neighbors
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["DGCNN"]

Conv = str | Callable[..., nn.Module]


class DGCNN(nn.Module):
    r"""Classifies point clouds by message passing on k-NN graphs of the features.

    Before each block the k-NN graph is built anew from the block's input. The outputs of all blocks are
    concatenated, mapped pointwise to ``embedding`` channels, pooled over points by maximum and mean, and
    classified by an MLP. The defaults are the paper's smaller version: the last three widths, 1024, 512
    and 256 in `DGCNN <https://arxiv.org/abs/1801.07829>`_, are 64. The first block (3 to 64) stays dense.

    Args:
        num_classes: Number of classes; 0 leaves the pooled features.
        in_channels: Coordinates (and features) of a point.
        conv: ``"mgic"`` for the channel hierarchy, ``"edge"`` for dense EdgeConv, or a PyG layer (class or
            name), dense, with normalisation and activation behind it.
        k: Neighbours of a point, itself counted.
        widths: Output width of each block.
        embedding: Width of the pointwise layer.
        hidden: Widths of the classifier's hidden layers.
        group_size: Largest group of channels, :math:`s_g`, with ``conv="mgic"``.
        coarse_size: Largest width of the coarsest level, :math:`s_c`, with ``conv="mgic"``.
        wrapped: The layer that ``"mgic"`` wraps: ``"edge"`` or a PyG layer.
        min_levels: Coarsen at least this many times, with ``conv="mgic"``.
        transfer_init: ``"random"``, ``"average"`` or, as :class:`mgic_geo.MGICGraphConv`, ``"signed"``, with
            ``conv="mgic"``; see :class:`mgic_geo.Restriction`.
        dropout: Probability of dropout behind each hidden layer.
        act: Activation; a name of PyG's resolver, a module or its class. ``"leaky_relu"`` has DGCNN's slope
            of 0.2.
        backend: k-NN backend, see :func:`mgic_geo.knn`.
        **conv_kwargs: Go to every message-passing layer; ``flow`` is fixed by the k-NN graph.

    Shapes:
        - input: dense clouds (B, N, in_channels); or points (N, in_channels) with ascending ``batch`` (N,);
          or a PyG ``Data`` or ``Batch`` with ``pos`` and, where there are several clouds, ``batch``;
        - output: logits (B, num_classes), a row for each cloud.

    Raises:
        ValueError: On an unknown layer, impossible sizes, or points that are not (…, in_channels)
            floating-point values; from a batch with an empty cloud.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        conv: Conv = "mgic",
        k: int = 10,
        widths: Sequence[int] = (64, 64, 128, 256),
        embedding: int = 64,
        hidden: Sequence[int] = (64, 64),
        group_size: int = 16,
        coarse_size: int = 32,
        wrapped: Conv = "edge",
        min_levels: int = 0,
        transfer_init: str = "signed",
        dropout: float = 0.2,
        act: Act = "leaky_relu",
        backend: str = "auto",
        **conv_kwargs: Any,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths must name at least one block's output width, such as (64, 64, 128, 256)")
        if "flow" in conv_kwargs:
            raise ValueError(
                f"flow={conv_kwargs['flow']!r}: the k-NN graph has one direction; leave flow out"
            )
        check_k(k)
        check_backend(backend)
        self.in_channels, self.k, self.backend = in_channels, k, backend
        if act == "leaky_relu":
            act = nn.LeakyReLU(0.2)
        layer, layer_kwargs = resolve_conv(wrapped if conv == "mgic" else conv), conv_kwargs

        blocks: list[nn.Module] = [_DenseBlock(layer, in_channels, widths[0], act, layer_kwargs)]
        for width_in, width_out in pairwise(widths):
            if conv == "mgic":
                cycle = MGICGraphConv(
                    width_in,
                    width_out,
                    layer,
                    group_size,
                    coarse_size,
                    act=act,
                    min_levels=min_levels,
                    transfer_init=transfer_init,
                    **layer_kwargs,
                )
                blocks.append(cycle)
            else:
                blocks.append(_DenseBlock(layer, width_in, width_out, act, layer_kwargs))
        self.blocks = nn.ModuleList(blocks)
        self._takes_neighbors = layer is EdgeConv
        self.embed = _Embedding(*_linear(sum(widths), embedding, act))
        self.num_features = 2 * embedding
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([self.num_features, *hidden]):
            layers += [*_linear(width_in, width_out, act), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.head_width = [self.num_features, *hidden][-1]
        self.classifier: nn.Module
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for ``num_classes``; 0 removes it."""
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
        self.num_classes = num_classes
        like = self.embed[0].weight  # device and type
        self.classifier = (
            nn.Linear(self.head_width, num_classes, device=like.device, dtype=like.dtype)  # type: ignore[arg-type]
            if num_classes
            else nn.Identity()
        )

    def forward_features(self, points: Tensor | Data, batch: Tensor | None = None) -> Tensor:
        """Pooled features (B, 2 · embedding) of each cloud: maximum, then mean, over its points."""
        x, batch, clouds = _points(points, batch)
        if x.dim() not in (2, 3) or x.size(-1) != self.in_channels or not x.is_floating_point():
            raise ValueError(
                f"points are (B, N, {self.in_channels}) or (N, {self.in_channels}) floating-point values, "
                f"got shape {tuple(x.shape)} of {x.dtype}"
            )
        embedded = self.embed.of(self._outputs(x, batch))  # type: ignore[operator]
        embedded = embedded.view(*x.shape[:-1], embedded.size(-1))
        if batch is None:
            embedded = embedded if embedded.dim() == 3 else embedded.unsqueeze(0)
            return torch.cat([embedded.amax(1), embedded.mean(1)], dim=-1)
        pools = global_max_pool, global_mean_pool
        return torch.cat([pool(embedded, batch, clouds) for pool in pools], dim=-1)

    def _outputs(self, x: Tensor, batch: Tensor | None) -> Iterator[Tensor]:
        """The output (points, width) of one block after the other."""
        shape = x.shape[:-1]
        for block in self.blocks:
            neighbors = dynamic_neighbors(x, self.k, batch, self.backend)
            flat = x.reshape(-1, x.size(-1))
            flat = block(flat, neighbors if self._takes_neighbors else neighbors.edge_index)
            x = flat.view(*shape, flat.size(-1))
            yield flat

    def forward(self, points: Tensor | Data, batch: Tensor | None = None) -> Tensor:
        """Logits (B, num_classes); inputs as in the class's docstring."""
        return self.classifier(self.hidden(self.forward_features(points, batch)))


class _DenseBlock(nn.Module):
    """A message-passing layer of full coupling with normalisation and activation."""

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        in_channels: int,
        out_channels: int,
        act: Act,
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        self.conv: nn.Module
        self.after: nn.Module = nn.Identity()
        if layer is EdgeConv:  # normalises and activates its edges, as DGCNN does
            self.conv = EdgeConv(in_channels, out_channels, act=act, **kwargs)
        else:
            self.conv = grouped(layer, 1)(in_channels, out_channels, **kwargs)
            self.after = nn.Sequential(nn.BatchNorm1d(out_channels), resolve_act(act))

    def forward(self, x: Tensor, graph: Tensor | Neighbors) -> Tensor:
        return self.after(self.conv(x, graph))


class _Embedding(nn.Sequential):
    """A pointwise map, normalisation and activation of several features side by side."""

    def of(self, features: Iterable[Tensor]) -> Tensor:
        """Takes (N, C_1), (N, C_2), ... without laying them side by side, each as soon as it is there.

        So the gradient of one is not there before it is needed either.
        """
        if observed(self, *self):
            return self(torch.cat(list(features), dim=-1))
        linear, norm, act = self
        assert isinstance(linear, GroupedLinear)
        embedded, first = None, 0
        for x in features:
            weight = linear.weight[:, first : first + x.size(-1)]
            embedded = added_linear(x, weight, linear.bias if embedded is None else embedded)
            first += x.size(-1)
        assert embedded is not None
        return norm_act(embedded, norm, act)


def _linear(in_channels: int, out_channels: int, act: Act) -> list[nn.Module]:
    return [GroupedLinear(in_channels, out_channels), nn.BatchNorm1d(out_channels), resolve_act(act)]


def _points(points: Tensor | Data, batch: Tensor | None) -> tuple[Tensor, Tensor | None, int | None]:
    """The points, the cloud of each, and how many clouds there are where that is known."""
    clouds = None
    if isinstance(points, Data):
        if points.pos is None:
            raise ValueError("the Data holds no pos; put the points there: Data(pos=points)")
        if batch is None and points.batch is not None:
            batch, clouds = points.batch, points.num_graphs
        points = points.pos
    if batch is not None and batch.numel() and points.dim() == 2:
        check_batch(batch, points.size(0))
        sizes = torch.bincount(batch, minlength=clouds or 0)
        if bool((sizes == 0).any()):
            raise ValueError(f"cloud {int(sizes.argmin())} of the batch has no points; leave such clouds out")
    return points, batch, clouds
