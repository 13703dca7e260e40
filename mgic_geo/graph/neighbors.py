"""Who each node gathers from: a graph in CSR form, built once and shared by all levels of a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, to_edge_index

from mgic_geo.graph.edge_inputs import check_range, index_of, unseen

__all__ = ["Neighbors", "as_neighbors", "compressed", "edges_of", "flatten_clouds"]

_TRIED = 16
"""Sizes of clouds that are tried; where clouds are unequal there may be many."""


class _kept:
    """A property computed once; functools' own takes a lock in Python 3.11, and torch.compile none."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make, self.__doc__ = make, make.__doc__

    def __get__(self, graph: Any, owner: type) -> Any:
        if graph is None:
            return self
        name = self.make.__name__
        if name not in graph.kept and not torch.compiler.is_compiling():
            with torch.inference_mode(False):  # what is kept may be needed for a gradient later
                graph.kept[name] = self.make(graph)
        elif name not in graph.kept:
            graph.kept[name] = self.make(graph)
        return graph.kept[name]


@dataclass(frozen=True, eq=False)
class Neighbors:
    r"""In-neighbours of every target node, in compressed rows.

    Node ``i`` gathers from ``col[rowptr[i]:rowptr[i + 1]]``. :meth:`from_table` and :meth:`from_edge_index`
    check what they are given; what is put together by hand is trusted.

    Args:
        rowptr: (N + 1,) integers, non-decreasing from 0 to E.
        col: (E,) source node of each edge, in [0, ``num_sources``).
        num_sources: Number of source nodes; that of the targets is N.
        clouds: Number of equal clouds the nodes fall into, one after another, with equally many edges and
            none between clouds; work on one cloud at a time stays in the cache.
        degree: Number of neighbours of every node, where all have as many; None where that is not known.
    """

    rowptr: Tensor
    col: Tensor
    num_sources: int
    clouds: int = 1
    degree: int | None = None
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_table(cls, table: Tensor, *, checked: bool = False) -> Neighbors:
        """The graph of a fixed-k neighbour table, as :func:`mgic_geo.knn` returns it.

        Args:
            table: (B, N, k) indices of points within each cloud, or (N, k) for one cloud.
            checked: Whether all of them are known to lie in [0, N).

        Returns:
            The graph on B·N nodes, cloud after cloud.

        Raises:
            ValueError: If ``table`` has another number of dimensions, or an index lies outside its cloud.
        """
        if table.dim() not in (2, 3):
            raise ValueError(f"a neighbour table is (B, N, k) or (N, k), got shape {tuple(table.shape)}")
        table = _integers(table if table.dim() == 3 else table.unsqueeze(0), "a neighbour table")
        clouds, nodes, k = table.shape
        if not checked:
            check_range(table, nodes, "indices of a neighbour table", "they count within each cloud")
        rowptr = torch.arange(clouds * nodes + 1, device=table.device) * k
        col = (table + nodes * torch.arange(clouds, device=table.device).view(-1, 1, 1)).flatten()
        neighbors = cls(rowptr, col, clouds * nodes, max(1, clouds), k)
        neighbors.kept["has_isolated"] = k == 0 and nodes > 0  # known without looking
        return neighbors

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_targets: int,
        num_sources: int | None = None,
        flow: str = "source_to_target",
    ) -> Neighbors:
        """The graph of a PyG edge index; any order of edges, any degrees, repeated edges count.

        Args:
            edge_index: (2, E), row 0 the sources if ``flow`` is ``"source_to_target"``.
            num_targets: Number N of nodes that gather.
            num_sources: Number of nodes gathered from; ``num_targets`` by default.
            flow: ``"source_to_target"`` or ``"target_to_source"``, as PyG's.

        Raises:
            ValueError: If the shape is not (2, E) or an index lies outside the nodes.
        """
        if edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ValueError(
                f"an edge index has shape (2, E), got {tuple(edge_index.shape)}; the neighbour table of one "
                "cloud goes with its points as dense clouds: x[None], table[None]"
            )
        edge_index = _integers(edge_index, "an edge index")
        num_sources = num_targets if num_sources is None else num_sources
        source, target = edge_index if flow == "source_to_target" else edge_index.flip(0)
        check_range(source, num_sources, "source indices")
        check_range(target, num_targets, "target indices")
        if torch.compiler.is_compiling() or not target.numel() or target.device.type != "cpu":
            target, order = target.sort(stable=True)
            return cls(_pointers(target, num_targets), source[order], num_sources)
        if not bool((target[1:] >= target[:-1]).all()):
            target, order = target.sort(stable=True)
            source = source[order]
        rowptr, clouds, degree = _pointers(target, num_targets), 1, None
        if bool((rowptr.diff() == source.numel() // num_targets).all()):  # a k-NN graph, say: then what
            degree = source.numel() // num_targets  # works on tables works here
            if num_sources == num_targets:
                clouds = _clouds(source.view(num_targets, degree))
        return cls(rowptr, source, num_sources, clouds, degree)

    @property
    def num_targets(self) -> int:
        """Number N of nodes that gather."""
        return self.rowptr.numel() - 1

    @_kept
    def row(self) -> Tensor:
        """(E,) target node of each edge, ascending."""
        nodes = torch.arange(self.num_targets, device=self.col.device)
        return nodes.repeat_interleave(self.in_degree, output_size=self.col.numel())

    @_kept
    def col32(self) -> Tensor:
        """(E,) ``col`` in 32 bits, one beside the other, half as much to read and to keep."""
        return self.col.int().contiguous()

    @_kept
    def edge_index(self) -> Tensor:
        """(2, E) the graph as PyG's edge index, sources in row 0."""
        return torch.stack([self.col, self.row])

    @_kept
    def in_degree(self) -> Tensor:
        """(N,) how many neighbours each target gathers from."""
        return self.rowptr.diff()

    @_kept
    def has_isolated(self) -> bool:
        """Whether some target has no neighbour at all; taken for granted where nobody can look."""
        return unseen(self.rowptr) or bool((self.in_degree == 0).any())

    @_kept
    def out_degree(self) -> Tensor:
        """(num_sources,) how many targets gather from each source."""
        return _count(self.col, self.num_sources)

    @property
    def transposed(self) -> Neighbors:
        """The graph with all edges reversed."""
        return self._transposed[0]

    @property
    def ranks(self) -> Tensor:
        """(E,) int32 of the edges of ``transposed``: which neighbour of its target the source is."""
        return self._transposed[1]

    @_kept
    def _transposed(self) -> tuple[Neighbors, Tensor]:
        source, order = self.col.sort(stable=True)
        target = self.row[order]
        transposed = Neighbors(_pointers(source, self.num_sources), target, self.num_targets)
        return transposed, (order - self.rowptr[target]).int()


def flatten_clouds(x: Tensor, graph: Tensor | Neighbors) -> tuple[Tensor, Neighbors]:
    """Dense clouds as one graph.

    Args:
        x: (B, N, C) features.
        graph: (B, N, k) neighbour table of indices within each cloud, or the :class:`Neighbors` made of it.

    Returns:
        Features (B·N, C) and the graph on B·N nodes.

    Raises:
        ValueError: If table and features differ in clouds or points, or an index lies outside its cloud.
    """
    if not isinstance(graph, Neighbors):
        if graph.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"dense clouds {tuple(x.shape)} need a (B, N, k) neighbour table, got {tuple(graph.shape)}; "
                "an edge index goes with nodes (N, C)"
            )
        graph = Neighbors.from_table(graph)
    return x.flatten(0, 1), graph


def as_neighbors(
    graph: Any, num_targets: int, num_sources: int | None = None, flow: str = "source_to_target"
) -> Neighbors:
    """Any form of a graph that PyG's layers take, as :class:`Neighbors`.

    Args:
        graph: (2, E) edge index or PyG's ``EdgeIndex``; the transposed adjacency matrix (targets, sources) as
            a sparse tensor of torch or a ``SparseTensor``, whose values do not count; or :class:`Neighbors`.
        num_targets: Number N of nodes that gather.
        num_sources: Number of nodes gathered from; ``num_targets`` by default.
        flow: Of an edge index, as PyG's.

    Raises:
        ValueError: As :meth:`Neighbors.from_edge_index`, or if a matrix has another shape or flow, or
            :class:`Neighbors` other nodes.
    """
    num_sources = num_targets if num_sources is None else num_sources
    if isinstance(graph, Neighbors):
        if (graph.num_sources, graph.num_targets) != (num_sources, num_targets):
            raise ValueError(
                f"the graph has {graph.num_sources} source and {graph.num_targets} target nodes, "
                f"but x has {num_sources} and {num_targets}"
            )
        return graph
    size = (graph.size(0), graph.size(1)) if is_sparse(graph) else None
    if size is not None and (size != (num_targets, num_sources) or flow != "source_to_target"):
        raise ValueError(
            f"a sparse matrix is the transposed adjacency, here {(num_targets, num_sources)} from sources to "
            f"targets, got {size} with {flow=}"
        )
    return Neighbors.from_edge_index(edges_of(graph, flow), num_targets, num_sources, flow)


def edges_of(graph: Any, flow: str = "source_to_target") -> Tensor:
    """(2, E) any form of a graph as PyG's edge index of that flow, its edges in the order they stand in."""
    if isinstance(graph, Neighbors):
        return graph.edge_index.flip(0) if flow == "target_to_source" else graph.edge_index
    if not is_sparse(graph):
        return graph.as_tensor() if isinstance(graph, EdgeIndex) else graph
    if isinstance(graph, Tensor) and graph.layout == torch.sparse_coo:
        return graph._indices().flip(0)  # PyG's own would mark the caller's matrix as in order
    return to_edge_index(graph)[0].flip(0)


def compressed(graph: Any) -> Any:
    """An adjacency matrix in COO as CSR, all else as it is.

    PyG would mark the caller's matrix as in order, and take it to be.
    """
    return graph.to_sparse_csr() if isinstance(graph, Tensor) and graph.layout == torch.sparse_coo else graph


def _integers(index: Tensor, what: str) -> Tensor:
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"{what} holds integers, got {index.dtype}; convert it with .long()")
    return index_of(index)


def _count(index: Tensor, nodes: int) -> Tensor:
    # As bincount, whose length depends on the values, which export cannot follow.
    return index.new_zeros(nodes).scatter_add_(0, index, torch.ones_like(index))


def _pointers(sorted_nodes: Tensor, nodes: int) -> Tensor:
    counts = _count(sorted_nodes, nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _clouds(table: Tensor) -> int:
    """Into how many equal parts nodes fall that no edge leaves, for a table (N, k) of their sources."""
    nodes = table.size(0)
    highest = table.amax(1).cummax(0).values  # of nodes up to here
    lowest = table.flip(0).amin(1).cummin(0).values.flip(0)  # of nodes from here on
    place = torch.arange(1, nodes)
    apart = (highest[:-1] < place) & (lowest[1:] >= place)  # nothing crosses the border ahead of this node
    for size in place[apart][:_TRIED].tolist():
        if nodes % size == 0 and bool(apart[size - 1 :: size].all()):
            return nodes // size
    return 1
