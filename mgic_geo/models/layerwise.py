"""Layer-wise inference for layers of several levels, each of which passes messages once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.utils import add_remaining_self_loops
from tqdm import tqdm

from mgic_geo.graph import MGICGraphConv

__all__ = ["infer"]

_EXPECTED = "inference needs a loader over all nodes in their order, input_nodes=None and shuffle=False"
_ROWS = 2**16  # nodes that are moved to the device at a time


@torch.no_grad()
def infer(
    model: BasicGNN,
    loader: Any,
    device: torch.device | str | None = None,
    embedding_device: torch.device | str = "cpu",
    progress_bar: bool = False,
    cache: bool = False,
) -> Tensor:
    """The outputs of all nodes, from batches that hold the seeds' full neighbourhood of one hop.

    PyG runs layer by layer over such batches. A layer of several levels looks further than one hop, so here
    each of its levels is a pass of its own over the loader, and what maps nodes alone runs between them.
    Layers that weigh edges by degrees, as GCNConv, get those of the whole graph: of its sources a batch shows
    only some edges.

    Args:
        model: In evaluation mode, with jk None or ``"last"``.
        loader: A ``NeighborLoader`` with ``num_neighbors=[-1]`` over all nodes in their order.
        device: Where layers run; None for where the batches are.
        embedding_device: Where features of all nodes are kept.
        progress_bar: Show one.
        cache: Keep the sampled graphs of the first pass.

    Returns:
        (N, out_channels), as the model's own on the whole graph.

    Raises:
        ValueError: If the model is training, its jumping knowledge needs all layers at once, the loader lacks
            nodes or shuffles them, or degrees are needed of a graph that is no edge index.
    """
    if model.training:
        raise ValueError("inference needs a model in evaluation mode; call eval() first")
    if model.jk_mode not in (None, "last"):
        raise ValueError(f"layer-wise inference goes with jk=None or 'last', got jk={model.jk_mode!r}")
    with _normalised(model, loader) as weighed:
        return _passes(model, loader, weighed, device, embedding_device, progress_bar, cache)


@contextmanager
def _normalised(model: BasicGNN, loader: Any) -> Iterator[Callable[..., tuple[Any, ...]]]:
    """What gives a batch's layers their graph, and weights where GCN's layers then need not normalise."""
    convs = [module for module in model.modules() if isinstance(module, GCNConv) and module.normalize]
    if not convs:
        yield lambda graph, nodes: (graph,)
        return
    loops, count = convs[0].add_self_loops, loader.data.num_nodes

    def with_loops(edge_index: Any, nodes: int) -> Tensor:
        if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
            raise ValueError(
                "GCN weighs edges by degrees, which are counted in the edge_index of loader.data and its "
                f"batches, got {type(edge_index).__name__}; leave ToSparseTensor out, or call the model on "
                "the whole graph"
            )
        return add_remaining_self_loops(edge_index, num_nodes=nodes)[0] if loops else edge_index

    degree = torch.bincount(with_loops(getattr(loader.data, "edge_index", None), count)[1], minlength=count)
    scale = degree.to(loader.data.x.dtype).rsqrt().masked_fill(degree == 0, 0)

    def weighed(graph: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        source, target = edges = with_loops(graph, len(nodes))
        own = scale[nodes.to(scale.device)].to(graph.device)
        return edges, own[source] * own[target]

    for conv in convs:
        conv.normalize = False
    try:
        yield weighed
    finally:
        for conv in convs:
            conv.normalize = True


def _passes(
    model: BasicGNN,
    loader: Any,
    weighed: Callable[..., tuple[Any, ...]],
    device: torch.device | str | None,
    embedding_device: torch.device | str,
    progress_bar: bool,
    cache: bool,
) -> Tensor:
    passes = sum(conv.num_hops if isinstance(conv, MGICGraphConv) else 1 for conv in model.convs)
    kept: list[Any] = []
    bar = tqdm(total=passes * len(loader), desc="Inference", disable=not progress_bar)

    def batches() -> Iterable[tuple[Tensor, int, tuple[Any, ...]]]:
        if kept:
            yield from kept
            return
        seen = 0
        for batch in loader:
            seeds = batch.n_id[: batch.batch_size]
            if not torch.equal(seeds.cpu(), torch.arange(seen, seen + len(seeds))):
                raise ValueError(f"{_EXPECTED}, got others behind the first {seen}")
            seen += len(seeds)
            graph = batch.adj_t if hasattr(batch, "adj_t") else batch.edge_index
            item = batch.n_id, batch.batch_size, weighed(graph.to(device), batch.n_id)
            if cache:
                kept.append(item)
            yield item
        if seen != len(loader.data.x):
            raise ValueError(f"{_EXPECTED}, got {seen} of {len(loader.data.x)}")

    def on_graph(layer: Callable[..., Tensor], x: Tensor) -> Tensor:
        outs = []
        for nodes, seeds, graph in batches():
            outs.append(layer(x[nodes.to(x.device)].to(device), *graph)[:seeds].to(embedding_device))
            bar.update()
        return torch.cat(outs)

    def on_nodes(layer: Callable[..., Tensor], *features: Tensor) -> Tensor:
        parts = zip(*(part.split(_ROWS) for part in features), strict=True)
        return torch.cat([layer(*(p.to(device) for p in part)).to(embedding_device) for part in parts])

    def cycle(layer: MGICGraphConv, x: Tensor) -> Tensor:
        """Algorithm 1 as in ``MGICBlock``, every block a pass over the loader."""
        levels, inner = [on_nodes(layer.shortcut, x)], layer.cycle
        for restrict in inner.restrictions:
            levels.append(on_nodes(restrict, levels[-1]))
        x = on_graph(lambda part, *graph: inner.blocks[-1](part, None, *graph), levels[-1])
        for j in reversed(range(layer.hierarchy.coarsenings)):
            norm, prolong, block = inner.norms[j], inner.prolongations[j], inner.blocks[j]
            x = on_nodes(
                lambda fine, low, new, n=norm, p=prolong: fine + n(p(new - low)), levels[j], levels[j + 1], x
            )
            x = on_graph(lambda part, *graph, b=block: b(part, None, *graph), x)
        return x

    x = loader.data.x.to(embedding_device)
    for i, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        x = cycle(conv, x) if isinstance(conv, MGICGraphConv) else on_graph(conv, x)
        if i < model.num_layers - 1 or model.jk_mode is not None:
            x = norm(x.to(device)).to(embedding_device) if model.supports_norm_batch else on_nodes(norm, x)
    bar.close()
    return on_nodes(model.lin, x) if isinstance(getattr(model, "lin", None), nn.Module) else x
