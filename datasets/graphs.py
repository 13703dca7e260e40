"""Graphs for classification: made on the spot, or the public sets of Planetoid and TUDataset through PyG."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid, TUDataset
from torch_geometric.utils import coalesce, to_undirected

from .cachefile import cache_folder
from .download import DownloadError

__all__ = ["PLANETOID", "block_model", "load_planetoid", "load_tudataset", "mixing_graphs"]

PLANETOID = ("Cora", "CiteSeer", "PubMed")
"""Citation graphs, by the names that PyG gives them."""


def block_model(
    seed: int,
    nodes: int = 2000,
    classes: int = 10,
    channels: int = 128,
    degree: int = 8,
    homophily: float = 0.5,
    noise: float = 0.5,
) -> Data:
    r"""A stochastic block model with noisy features: neither features nor edges alone tell the class.

    Every class has a random unit vector; a node's features are its class's vector plus independent normal
    noise. An edge ends within its own class with probability ``homophily``, anywhere otherwise.

    Args:
        seed: Decides all.
        nodes: Number N of nodes.
        classes: Number of classes.
        channels: Width C of the features.
        degree: Mean number of neighbours.
        homophily: See above.
        noise: Standard deviation of the noise in each channel.

    Returns:
        ``x`` (N, C), ``edge_index`` (2, E) both ways, ``y`` (N,), and the masks ``train_mask`` (a third of
        the nodes) and ``test_mask`` (the others).
    """
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (nodes,), generator=random)
    vectors = torch.nn.functional.normalize(torch.randn(classes, channels, generator=random), dim=1)
    x = vectors[y] + noise * torch.randn(nodes, channels, generator=random)
    first = torch.randint(nodes, (nodes * degree // 2,), generator=random)
    edges = _partners(y, y[first], first, homophily, random)
    train = torch.zeros(nodes, dtype=torch.bool)
    train[torch.randperm(nodes, generator=random)[: nodes // 3]] = True
    return Data(x=x, edge_index=to_undirected(edges), y=y, train_mask=train, test_mask=~train)


def mixing_graphs(
    seed: int, graphs: int = 600, nodes: int = 32, colours: int = 8, degree: int = 4, mixing: float = 0.5
) -> list[Data]:
    r"""Small graphs whose class is which colours link: only messages between neighbours can tell it.

    Nodes have random colours. In a graph of class :math:`c` a share ``mixing`` of the edges link a colour
    :math:`a` with the colour :math:`a \oplus c` (bits exclusive-or), all others link any two nodes. The
    numbers of colours and of neighbours are distributed alike in all classes.

    Args:
        seed: Decides all.
        graphs: How many.
        nodes: Number of nodes of each.
        colours: Number of colours and of classes, a power of two.
        degree: Mean number of neighbours.
        mixing: See above.

    Returns:
        Graphs with ``x`` (nodes, colours) one-hot, ``edge_index`` both ways and ``y`` (1,).

    Raises:
        ValueError: If ``colours`` is no power of two.
    """
    if colours < 2 or colours & (colours - 1):
        raise ValueError(f"colours must be a power of two, got {colours}")
    random = torch.Generator().manual_seed(seed)
    made = []
    for i in range(graphs):
        label = i % colours
        colour = torch.randint(colours, (nodes,), generator=random)
        first = torch.randint(nodes, (nodes * degree // 2,), generator=random)
        edges = _partners(colour, colour[first] ^ label, first, mixing, random)
        x = torch.nn.functional.one_hot(colour, colours).float()
        made.append(Data(x=x, edge_index=to_undirected(edges, num_nodes=nodes), y=torch.tensor([label])))
    return made


def _partners(kinds: Tensor, wanted: Tensor, first: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Edges (2, E) from ``first``: a ``share`` of them to nodes of the ``wanted`` kinds, others anywhere."""
    order, counts = kinds.argsort(stable=True), kinds.bincount(minlength=int(wanted.max()) + 1)
    start, found = counts.cumsum(0) - counts, counts[wanted]
    place = start[wanted] + (torch.rand(len(first), generator=random) * found).long()
    anywhere = torch.randint(len(kinds), first.shape, generator=random)
    keep = (torch.rand(len(first), generator=random) < share) & (found > 0)
    second = torch.where(keep, order[place.clamp(max=len(kinds) - 1)], anywhere)
    return coalesce(torch.stack([first, second])[:, first != second])


def load_planetoid(name: str) -> Data:
    """The citation graph ``"Cora"``, ``"CiteSeer"`` or ``"PubMed"`` with its public split.

    Raises:
        DownloadError: If it is not kept yet and cannot be downloaded.
    """
    try:
        return Planetoid(str(cache_folder(None)), name)[0]  # type: ignore[return-value]
    except (OSError, RuntimeError) as error:
        raise _unreachable(name, error) from error


def load_tudataset(name: str) -> list[Data]:
    """A set of TUDataset such as ``"MUTAG"``; graphs without node features get their degree as one-hot.

    Raises:
        DownloadError: If it is not kept yet and cannot be downloaded, or does not exist.
    """
    try:
        graphs: list[Data] = [*TUDataset(str(cache_folder(None)), name)]  # type: ignore[list-item]
    except (OSError, RuntimeError) as error:
        raise _unreachable(name, error) from error
    if graphs[0].x is None:
        for graph in graphs:
            assert graph.edge_index is not None
            degrees = graph.edge_index[1].bincount(minlength=graph.num_nodes or 0).clamp(max=63)
            graph.x = torch.nn.functional.one_hot(degrees, 64).float()
    return graphs


def _unreachable(name: str, error: Exception) -> DownloadError:
    cache = cache_folder(None)
    for folder in cache / name / "raw", cache / name:  # PyG makes them before it asks the network
        with contextlib.suppress(OSError):
            folder.rmdir()  # if empty
    return DownloadError(
        f"{name} is not in {cache} and could not be downloaded ({error}); look whether "
        "there is one of this name, download it on a machine with network and copy the folder, set MGIC_DATA "
        "to where it is, or use data made on the spot: nodes or graphs"
    )
