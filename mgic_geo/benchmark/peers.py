"""What the networks and layers are compared with, made of other libraries' parts or of plain torch."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mgic_geo.models import DGCNN

__all__ = ["PlainDGCNN", "PlainEdgeConv", "PyGDGCNN"]
__all__ += ["cluster_graph", "cluster_runs", "installed", "pyg_edge_conv"]


def installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


@functools.cache
def cluster_runs(device: str) -> bool:
    """Whether torch-cluster is installed, fits the installed torch, and is made for this device."""
    if not installed("torch_cluster"):
        return False
    try:
        cluster_graph(torch.zeros(1, 2, 3, device=device), 1)
    except (RuntimeError, ImportError, OSError):  # built for the CPU alone, or for another torch
        return False
    return True


def cluster_graph(x: Tensor, k: int) -> Tensor:
    """torch-cluster's k-NN graph of clouds (B, N, C), each point its own neighbour: (2, B·N·k)."""
    from torch_cluster import knn_graph  # type: ignore[import-not-found]

    clouds, size, _ = x.shape
    batch = torch.arange(clouds, device=x.device).repeat_interleave(size)
    return knn_graph(x.flatten(0, 1), k, batch, loop=True)


def pyg_edge_conv(in_channels: int, out_channels: int) -> nn.Module:
    """PyG's EdgeConv with DGCNN's map inside: linear, normalised over edges, leaky; the maximum behind."""
    from torch_geometric.nn import EdgeConv  # after our package, which hides PyG's own import warning

    inner = nn.Sequential(
        nn.Linear(2 * in_channels, out_channels, bias=False), nn.BatchNorm1d(out_channels), nn.LeakyReLU(0.2)
    )
    return EdgeConv(inner, aggr="max")


class PlainEdgeConv(nn.Module):
    """The edge convolution as its formula reads: a vector an edge, a 1×1 convolution over edges, the maximum.

    Shapes:
        - x: (B, N, in_channels); table: (B, N, k) neighbours within each cloud;
        - output: (B, N, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Every edge's features are stored on the way."""
        clouds, size, channels = x.shape
        offset = size * torch.arange(clouds, device=x.device).view(-1, 1, 1)
        neighbor = x.reshape(-1, channels)[(table + offset).flatten()].view(clouds, size, -1, channels)
        center = x.unsqueeze(2).expand_as(neighbor)
        edges = torch.cat([neighbor - center, center], dim=-1).permute(0, 3, 1, 2).contiguous()
        return self.act(self.norm(self.conv(edges))).max(-1).values.transpose(1, 2)

    def load_linear(self, weight: Tensor) -> None:
        """Take the weight (out_channels, 2·in_channels) of a map from [x_i, x_j - x_i]."""
        on_center, on_difference = weight.detach().chunk(2, dim=1)
        self.conv.load_state_dict({"weight": torch.cat([on_difference, on_center], 1)[..., None, None]})


class _Network(nn.Module):
    """Dense DGCNN around whatever does its edge convolutions; sizes as in :class:`mgic_geo.models.DGCNN`."""

    edge_conv: Callable[[int, int], nn.Module]

    def __init__(
        self,
        k: int = 10,
        widths: Sequence[int] = (64, 64, 128, 256),
        num_classes: int = 10,
        embedding: int = 64,
        hidden: Sequence[int] = (64, 64),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.k = k
        self.blocks = nn.ModuleList(self.edge_conv(a, b) for a, b in pairwise([3, *widths]))
        self.embed = nn.Sequential(
            nn.Conv1d(sum(widths), embedding, 1, bias=False), nn.BatchNorm1d(embedding), nn.LeakyReLU(0.2)
        )
        layers: list[nn.Module] = []
        for a, b in pairwise([2 * embedding, *hidden]):
            layers += [
                nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.LeakyReLU(0.2), nn.Dropout(dropout)
            ]  # fmt: skip
        self.head = nn.Sequential(*layers, nn.Linear([2 * embedding, *hidden][-1], num_classes))

    def block(self, block: nn.Module, x: Tensor) -> Tensor:
        """One edge convolution of clouds (B, N, C), on the k-NN graph of x."""
        raise NotImplementedError

    def forward(self, points: Tensor) -> Tensor:
        """Logits (B, num_classes) of clouds (B, N, 3)."""
        x, outputs = points, []
        for block in self.blocks:
            x = self.block(block, x)
            outputs.append(x)
        embedded = self.embed(torch.cat(outputs, dim=-1).transpose(1, 2))
        return self.head(torch.cat([embedded.amax(-1), embedded.mean(-1)], dim=-1))

    def load_dense(self, ours: DGCNN) -> None:
        """Take the weights of our dense network (``conv="edge"``) of the same sizes."""
        for block, other in zip(self.blocks, ours.blocks, strict=True):
            _load_edge_conv(block, other.conv)  # type: ignore[arg-type]
        self.embed[0].load_state_dict({"weight": ours.embed[0].weight[..., None]})  # type: ignore[index]
        self.embed[1].load_state_dict(ours.embed[1].state_dict())
        for layer, other in zip(self.head, [*ours.hidden, ours.classifier], strict=True):
            layer.load_state_dict(other.state_dict())


class PlainDGCNN(_Network):
    """DGCNN as most implementations have it: full distance matrices, and everything an edge has in memory."""

    edge_conv = PlainEdgeConv

    def block(self, block: nn.Module, x: Tensor) -> Tensor:
        """On the graph that the whole matrix of squared distances gives."""
        with torch.no_grad():
            squares = x.square().sum(-1)
            product = torch.matmul(x, x.transpose(1, 2))
            distances = squares.unsqueeze(1) - 2 * product + squares.unsqueeze(2)
            table = distances.topk(self.k, largest=False).indices
        return block(x, table)


class PyGDGCNN(_Network):
    """The same from PyG's EdgeConv on torch-cluster's k-NN graph (extra ``cluster``)."""

    edge_conv = staticmethod(pyg_edge_conv)

    def block(self, block: nn.Module, x: Tensor) -> Tensor:
        """On torch-cluster's graph."""
        return block(x.flatten(0, 1), cluster_graph(x, self.k)).view(*x.shape[:2], -1)


def _load_edge_conv(theirs: nn.Module, ours: nn.Module) -> None:
    if isinstance(theirs, PlainEdgeConv):
        theirs.load_linear(ours.lin.weight)  # type: ignore[union-attr, arg-type]
        theirs.norm.load_state_dict(ours.norm.state_dict())  # type: ignore[union-attr]
    else:
        linear, norm, _ = theirs.nn  # type: ignore[misc]
        linear.load_state_dict({"weight": ours.lin.weight})  # type: ignore[union-attr]
        norm.load_state_dict(ours.norm.state_dict())  # type: ignore[union-attr]
