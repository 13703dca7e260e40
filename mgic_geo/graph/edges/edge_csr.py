"""Which edges end at each node of an edge index: worked out once a graph, and remembered."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from mgic_geo.graph.edge_inputs import check_range
from mgic_geo.native import kernels, run

__all__ = ["EdgeCSR", "clear_graph_cache", "edge_csr"]

_KEPT, _BYTES = 8, 2**28  # how many graphs are remembered, and how much memory all of them together may take
_recent: list[EdgeCSR] = []


def edge_csr(edge_index: Tensor, sources: int, targets: int) -> EdgeCSR:
    """The compressed rows of an edge index, (2, E) with the sources in row 0, on the CPU.

    The last few are remembered and found by their values: layers that add self-loops make a new tensor, equal
    to the last one, at every call. Comparing costs a hundredth of sorting. They share 256 MiB, beside which
    the last one that is larger by itself has a place of its own; :func:`clear_graph_cache` frees all.

    Raises:
        ValueError: If an index lies outside the nodes.
    """
    source, target = edge_index.detach().long()
    for known in tuple(_recent):  # another thread may remember one meanwhile
        if known.matches(source, target, sources, targets):
            return known
    with torch.inference_mode(False):  # what is kept may be needed for a gradient later
        made = EdgeCSR(source.clone(), target.clone(), sources, targets)
    _recent[:] = _within_budget([made, *_recent])
    return made


def clear_graph_cache() -> None:
    """Free what layers remember of the last few graphs that they ran on."""
    _recent.clear()


def _within_budget(graphs: list[EdgeCSR]) -> list[EdgeCSR]:
    """Of graphs, the newest first, those to remember."""
    kept, large, free = [], [], _BYTES
    for graph in graphs:
        size = graph.nbytes
        if size > _BYTES:
            large.append(graph)
        elif size <= free and len(kept) < _KEPT:
            kept.append(graph)
            free -= size
    return kept + large[:1]


class EdgeCSR:
    """The edges of each target, in compressed rows.

    Args:
        source: (E,) int64 the node where each edge starts.
        target: (E,) int64 the node where it ends.
        sources: Number of nodes that edges start from.
        targets: Number of nodes that they end at.

    Attributes:
        edges: (E,) the edges by their targets.
        ptr: (targets + 1,) where those of each target start.
        degree: (targets,) how many each has.

    Raises:
        ValueError: If an index lies outside the nodes.
    """

    def __init__(self, source: Tensor, target: Tensor, sources: int, targets: int) -> None:
        check_range(source, sources, "source indices")
        check_range(target, targets, "target indices")
        self.source, self.target, self.sources, self.targets = source, target, sources, targets
        self.ordered = bool((target[1:] >= target[:-1]).all())
        self.edges, self.source_by_target, self.ptr = _sort(source, target, targets)
        self.degree = self.ptr.diff()
        self._transposed: EdgeCSR | None = None
        self._origin: weakref.ref[EdgeCSR] | None = None  # weak: a cycle would linger
        self._kept: dict[object, tuple[Tensor, ...]] = {}

    @property
    def nbytes(self) -> int:
        """How much memory it takes by now, with what was worked out since it was made."""
        own = [self.edges, self.ptr, self.degree, self.source_by_target]
        if self._origin is None:  # else these are the origin's
            own += [self.source, self.target]
        own += [t.values() if t.is_sparse_csr else t for kept in self._kept.values() for t in kept]
        transposed = 0 if self._transposed is None else self._transposed.nbytes
        return sum(tensor.nbytes for tensor in own) + transposed

    def matches(self, source: Tensor, target: Tensor, sources: int, targets: int) -> bool:
        """Whether this is the graph of these edges."""
        return (
            (self.sources, self.targets) == (sources, targets)
            and self.source.shape == source.shape
            and torch.equal(self.source, source)  # first: k-NN graphs of one size share their targets
            and torch.equal(self.target, target)
        )

    @property
    @torch.inference_mode(False)
    def transposed(self) -> EdgeCSR:
        """The graph with all edges reversed."""
        origin = None if self._origin is None else self._origin()
        if origin is not None:
            return origin
        if self._transposed is None:
            self._transposed = EdgeCSR(self.target, self.source, self.targets, self.sources)
            self._transposed._origin = weakref.ref(self)
        return self._transposed

    def by_target(self, values: Tensor) -> Tensor:
        """(E,) values of edges in the order of :attr:`edges`."""
        return values if self.ordered else values.index_select(0, self.edges)

    @torch.inference_mode(False)
    def expand_heads(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The graph of pairs (node, head) with an edge from (j, h) to (i, h) for every edge from j to i.

        Returns:
            By their targets: the edges' sources, (E · count,), their places in values (E, count), and where
            those of each target start.
        """
        if count in self._kept:
            source, edge, ptr = self._kept[count]
        else:
            degree = self.degree.repeat_interleave(count)
            ptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
            pair = torch.arange(degree.numel(), device=degree.device).repeat_interleave(degree)
            place = torch.arange(pair.numel(), device=pair.device) - ptr[pair] + self.ptr[pair // count]
            head = pair % count
            source, edge = self.source_by_target[place] * count + head, self.edges[place] * count + head
            if source.nbytes + edge.nbytes + ptr.nbytes <= _BYTES:
                self._kept[count] = source, edge, ptr
        return source, edge, ptr

    @torch.inference_mode(False)
    def rows(self, like: Tensor) -> Tensor:
        """A sparse matrix (targets, E) of ones in the precision of ``like``."""
        if like.dtype not in self._kept:
            ones = torch.ones(self.edges.numel(), dtype=like.dtype, device=self.edges.device)
            size = (self.targets, self.edges.numel())
            matrix = torch.sparse_csr_tensor(self.ptr, self.edges, ones, size, check_invariants=False)
            self._kept[like.dtype] = (matrix,)
        return self._kept[like.dtype][0]

    def degrees(self, like: Tensor) -> Tensor:
        """(targets, 1) the degrees, at least 1, in the precision of ``like``."""
        return self.degree.clamp(min=1).to(like.dtype).unsqueeze(1)

    @torch.inference_mode(False)
    def bag_layout(self, parts: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Rows of a table [targets; sources; further rows] that every edge reads, and where each starts.

        Args:
            parts: Number of rows of each part; an edge reads its own of the first two, if there are any, and
                all of the last.
        """
        if parts not in self._kept:
            first, second, third = parts
            own = [self.target] if first else []
            own += [self.source + first] if second else []
            rest = torch.arange(first + second, first + second + third, device=self.edges.device)
            columns = [index.unsqueeze(1) for index in own] + [rest.expand(self.edges.numel(), third)]
            rows = torch.cat(columns, 1)
            ptr = torch.arange(rows.size(0) + 1, device=rows.device) * rows.size(1)
            self._kept[parts] = rows.flatten(), ptr
        return self._kept[parts]

    @torch.inference_mode(False)
    def tables(self, most: int) -> tuple[Tensor, ...]:
        """The edges of the targets as tables (at most ``most`` targets, as many columns as one has edges).

        Targets of like degree share a table, up to twice the least. Places without an edge hold E.
        """
        if ("tables", most) not in self._kept:
            bits = torch.frexp(self.degree.double()).exponent
            order, made = bits.argsort(stable=True), []
            edges = torch.cat([self.edges, self.edges.new_full((1,), self.edges.numel())])
            for same in order.split(torch.bincount(bits).tolist()):
                for targets in same.split(most) if same.numel() else ():
                    degree, first = self.degree[targets].unsqueeze(1), self.ptr[targets].unsqueeze(1)
                    column = torch.arange(max(1, int(degree.max())), device=degree.device)
                    made.append(edges[torch.where(column < degree, first + column, self.edges.numel())])
            self._kept["places", most] = (order.argsort(),)  # first: another thread may look for the tables
            self._kept["tables", most] = tuple(made) or (edges.new_zeros(0, 1),)
        return self._kept["tables", most]

    def place_in_tables(self, most: int) -> Tensor:
        """(targets,) the row of each target in the tables, one below the other."""
        self.tables(most)
        return self._kept["places", most][0]


def _sort(source: Tensor, target: Tensor, targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """The edges by their targets, their sources in this order, and where those of each target start."""
    if kernels() is None or torch.jit.is_tracing():  # type: ignore[attr-defined]
        order = target.argsort(stable=True)
        degree = torch.bincount(target, minlength=targets)
        return order, source.index_select(0, order), torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    order, by_target, ptr = torch.empty_like(target), torch.empty_like(source), target.new_empty(targets + 1)
    run(
        "sort_edges", target.contiguous(), source.contiguous(), target.numel(), targets, order, by_target, ptr
    )
    return order, by_target, ptr
