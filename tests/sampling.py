"""Sampled batches, built by hand as a neighbour sampler orders them: seeds first, then hop by hop."""

import torch


def sample(edge_index, seeds, hops):
    """Full neighbourhoods: nodes in the order they are found, edges of each hop, and their numbers."""
    nodes, edges, found, frontier = list(seeds), [], [len(seeds)], list(seeds)
    counts = []
    for _ in range(hops):
        chosen = [
            (s, t)
            for t in frontier
            for s, u in zip(*edge_index.tolist(), strict=True)
            if u == t
        ]  # fmt: skip
        frontier = list(dict.fromkeys(s for s, _ in chosen if s not in nodes))
        nodes += frontier
        found.append(len(frontier))
        counts.append(len(chosen))
        edges += chosen
    place = {node: i for i, node in enumerate(nodes)}
    local = torch.tensor([[place[s] for s, _ in edges], [place[t] for _, t in edges]])
    return torch.tensor(nodes), local, found, counts


def ring():
    """Features and edges of a ring of 60 nodes with 20 more edges."""
    torch.manual_seed(0)
    ring = torch.arange(60)
    edge_index = torch.cat([torch.stack([ring, (ring + 1) % 60]), torch.randint(60, (2, 20))], dim=1)
    return torch.randn(60, 8), edge_index.unique(dim=1)
