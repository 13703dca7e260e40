"""The message-passing layers of the installed PyG, found by inspection, and how to try any of them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from mgic_geo.graph.grouped.build import networks_of, parameters_of

__all__ = ["example_graph", "inputs_of", "layer_classes", "options_of", "reason_against"]

EDGE_DIM = 3
RELATIONS = 2
KINDS = ["author", "paper"]
LINKS = [("author", "writes", "paper"), ("paper", "cites", "paper"), ("paper", "by", "author")]

# Generic values of what layers ask for, by the name of the parameter.
_OPTIONS: dict[str, Any] = {
    "K": 2,
    "aggregators": ["mean", "max", "std"],
    "alpha": 0.3,
    "deg": torch.tensor([0, 2, 5, 9, 4]),
    "dim": EDGE_DIM,
    "edge_attr_emb_dim": 4,
    "edge_dim": EDGE_DIM,
    "edge_type_emb_dim": 4,
    "filter_size": 2,
    "first_aggr": True,
    "heads": 2,
    "hidden_channels": 4,
    "in_edge_channels": EDGE_DIM,
    "k": 3,
    "kernel_size": 2,
    "metadata": (KINDS, LINKS),
    "num_edge_types": RELATIONS,
    "num_heads": 2,
    "num_layers": 2,
    "num_node_types": RELATIONS,
    "num_relations": RELATIONS,
    "propagate_dimensions": 4,
    "scalers": ["identity", "amplification", "attenuation"],
    "space_dimensions": 3,
}
_OVERRIDES: dict[type[nn.Module], dict[str, Any]] = {
    pyg.FusedGATConv: {"heads": 2, "add_self_loops": False},
    pyg.HypergraphConv: {},  # its heads go with attention on the features of hyperedges
}
_OPTIONAL = ("edge_dim", "heads", "in_edge_channels", "num_heads")  # taken where a layer can do without


def layer_classes() -> list[type[pyg.MessagePassing]]:
    """The message-passing layers that PyG lists, in its order."""
    found = (getattr(pyg.conv, name) for name in pyg.conv.__all__)
    return [conv for conv in found if issubclass(conv, pyg.MessagePassing) and conv is not pyg.MessagePassing]


def reason_against(conv: type[nn.Module]) -> str | None:
    """Why a layer cannot be built from two widths; None if :func:`construct` can."""
    given, networks = parameters_of(conv), networks_of(conv)
    if networks is not None or {"in_channels", "out_channels", "channels"} & given.keys():
        return None
    missing = [name for name, p in given.items() if p.default is p.empty and name not in _OPTIONS]
    return f"needs {', '.join(missing)}" if missing else None


def options_of(conv: type[nn.Module]) -> dict[str, Any]:
    """Values of all that ``conv`` asks for besides widths and networks, and of edge features and heads."""
    if conv in _OVERRIDES:
        return dict(_OVERRIDES[conv])
    given = dict(parameters_of(conv))
    networks = networks_of(conv)
    given.update(parameters_of(networks) if networks is not None else {})
    required = {name for name, p in given.items() if p.default is p.empty}
    return {
        name: value
        for name, value in _OPTIONS.items()
        if name in required or (name in _OPTIONAL and name in given)
    }


def example_graph(nodes: int, degree: int, seed: int = 0) -> Tensor:
    """(2, nodes · degree) a random edge index; every node gathers from ``degree`` nodes, as few as itself."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randint(nodes, (nodes * degree,), generator=generator)
    return torch.stack([sources, torch.arange(nodes).repeat_interleave(degree)])


def inputs_of(
    conv: type[nn.Module], x: Tensor, edge_index: Tensor, options: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """What the layer's ``forward`` takes, by name.

    Args:
        conv: The layer's class.
        x: (N, in_channels) features; a layer that reads others, as an ``x_0``, gets these again.
        edge_index: (2, E).
        options: What the layer was made with: edge features are given where it reads them.
        seed: Of all that is random.
    """
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = x.size(0), edge_index.size(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def which(count: int, size: int) -> Tensor:
        return torch.randint(count, (size,), generator=generator)

    reads_edges = any(options.get(name) for name in ("edge_dim", "in_edge_channels", "dim"))
    half = edges // 2
    values: dict[str, Any] = {
        "x": x.unsqueeze(1) * torch.tensor([1.0, -0.5]).view(2, 1) if conv is pyg.DNAConv else x,
        "x_0": x,
        "x_dict": {KINDS[0]: x, KINDS[1]: -x},
        "edge_index": edge_index,
        "edge_index_dict": dict.fromkeys(LINKS, edge_index),
        "hyperedge_index": edge_index,
        "pos_edge_index": edge_index[:, :half],
        "neg_edge_index": edge_index[:, half:],
        "edge_weight": 0.5 + torch.rand(edges, generator=generator),
        "edge_attr": torch.rand(edges, EDGE_DIM, generator=generator) if reads_edges else None,
        "edge_type": which(RELATIONS, edges),
        "node_type": which(RELATIONS, nodes),
        "pos": normal(nodes, 3),
        "normal": normal(nodes, 3),
    }
    if conv is pyg.FAConv:
        del values["edge_weight"]  # it takes them in the place of its own normalisation only
    asked = inspect.signature(conv.forward).parameters
    return {name: values[name] for name in asked if values.get(name) is not None}
