"""Slow, obvious twins of what the package computes fast, and what tests share to compare them."""

import copy

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn


def relative_difference(ours: Tensor, twin: Tensor, least: float = 0.0) -> float:
    """Norm of the difference over that of the twin, at least ``least``; the plain norm where that is zero."""
    ours, twin = ours.detach().double(), twin.detach().double()
    assert ours.shape == twin.shape, f"{tuple(ours.shape)} against {tuple(twin.shape)}"
    scale = twin.norm().clamp(min=least)
    return float((ours - twin).norm() / (scale if scale > 0 else 1))


def grouped_map(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A grouped pointwise map as one dense product with a block-diagonal matrix."""
    dense = torch.block_diag(*weight.chunk(groups))
    return x @ dense.T + (0 if bias is None else bias)


def nearest(x: Tensor, k: int) -> Tensor:
    """(N, C) to (N, k): all distances in float64, then a full sort; a point is its own first."""
    distance = (x.double().unsqueeze(1) - x.double().unsqueeze(0)).square().sum(-1)
    distance.fill_diagonal_(-1)
    return distance.argsort(dim=1)[:, :k]


def assert_nearest(x, table):
    """Each row holds the point itself, then as near ones as a full sort finds, all distinct."""
    k = table.size(1)
    distance = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = distance.gather(1, table)
    best = distance.gather(1, nearest(x, k))
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-30)
    assert torch.equal(table[:, 0], torch.arange(len(x)))
    assert all(len(set(row)) == k for row in table.tolist())


def neighbor_reduce(y: Tensor, source: Tensor, target: Tensor, nodes: int, how: str) -> Tensor:
    """Maximum or sum over neighbours, one node after another."""
    rows = []
    for node in range(nodes):
        values = y[source[target == node]]
        if len(values) == 0:
            rows.append(0 * y.sum(0))
        else:
            rows.append(values.amax(0) if how == "max" else values.sum(0))
    return torch.stack(rows)


def pyg_edge_conv(conv: nn.Module) -> pyg.EdgeConv:
    """PyG's EdgeConv with an MLP of the same weights, one product per edge."""
    layers: list[nn.Module] = [
        nn.Linear(2 * conv.in_channels, conv.out_channels, bias=conv.lin.bias is not None)
    ]
    if conv.norm is not None:
        layers.append(nn.BatchNorm1d(conv.out_channels))
    twin = pyg.EdgeConv(nn.Sequential(*layers, conv.act), flow=conv.flow).to(conv.lin.weight.dtype)
    twin.nn[0].load_state_dict(conv.lin.state_dict())
    if conv.norm is not None:
        twin.nn[1].load_state_dict(conv.norm.state_dict())
    return twin.train(conv.training)


def dgcnn(model: nn.Module, clouds: Tensor) -> Tensor:
    """A DGCNN in evaluation mode, cloud by cloud: all distances, PyG's EdgeConv, explicit pooling."""
    logits = []
    for cloud in clouds:
        x, outputs = cloud, []
        for block in model.blocks:
            neighbor = nearest(x, model.k)
            target = torch.arange(len(x)).repeat_interleave(model.k)
            graph = torch.stack([neighbor.flatten(), target])
            if hasattr(block, "cycle"):
                x = _mgic_block(block, x, graph)
            else:
                x = pyg_edge_conv(block.conv)(x, graph)
            outputs.append(x)
        mapped = torch.cat(outputs, dim=1) @ model.embed[0].weight.T
        embedded = nn.functional.leaky_relu(model.embed[1](mapped), 0.2)
        x = torch.cat([embedded.max(0).values, embedded.mean(0)]).unsqueeze(0)
        for start in range(0, len(model.hidden), 4):
            linear, norm = model.hidden[start : start + 2]
            x = nn.functional.leaky_relu(norm(x @ linear.weight.T), 0.2)
        logits.append(model.classifier(x))
    return torch.cat(logits)


def _mgic_block(layer: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
    """A MGICGraphConv around EdgeConv, with one small PyG layer for each group of each level."""
    if not isinstance(layer.shortcut, nn.Identity):
        x = grouped_map(x, layer.shortcut.weight, None, layer.shortcut.groups)

    class Level(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            conv = self.block.conv
            groups = getattr(conv, "groups", 1)
            parts = []
            for part, weight in zip(x.chunk(groups, 1), conv.lin.weight.chunk(groups), strict=True):
                small = pyg.EdgeConv(nn.Linear(2 * part.size(1), len(weight), bias=False)).to(x.dtype)
                small.nn.weight = nn.Parameter(weight)
                parts.append(small(part, graph))
            return x + nn.functional.leaky_relu(self.block.norm(torch.cat(parts, 1)), 0.2)

    cycle = copy.copy(layer.cycle)
    cycle._modules = dict(cycle._modules, blocks=nn.ModuleList(Level(block) for block in layer.cycle.blocks))
    return v_cycle(cycle, x)


def v_cycle(block: nn.Module, x: Tensor) -> Tensor:
    """Algorithm 1 for a MGICBlock, by recursion instead of loops."""

    def level(j: int, x: Tensor) -> Tensor:
        if j == block.hierarchy.coarsenings:
            return block.blocks[j](x)
        coarse = block.restrictions[j](x)
        correction = block.prolongations[j](level(j + 1, coarse) - coarse)
        return block.blocks[j](x + block.norms[j](correction))

    return level(0, x)


def side_by_side(block: nn.Module, small: nn.Module, x: Tensor, groups: int) -> Tensor:
    """What a grouped image block gives: ``small``, of one group's width, on each group with its weights."""
    outputs = []
    for group, part in enumerate(x.chunk(groups, dim=1)):
        state = {name: value.chunk(groups)[group] for name, value in block.named_parameters()}
        for name, value in block.named_buffers():
            state[name] = value.chunk(groups)[group].clone() if value.dim() else value.clone()
        outputs.append(torch.func.functional_call(small, state, (part,)))
    return torch.cat(outputs, dim=1)


def assert_same_gradients(ours: Tensor, twin: Tensor, inputs: list[Tensor], twins: list[Tensor]) -> None:
    """The outputs and their gradients, for one random upstream gradient."""
    torch.testing.assert_close(ours, twin)
    upstream = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(0))
    for a, b in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(twin, twins, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


def segmentation_loss(
    logits: Tensor, masks: Tensor, weight: Tensor | None, hardest: float, smoothing: float
) -> Tensor:
    """The mean loss of a batch's labelled pixels (those not 255), one pixel after another."""
    classes = logits.shape[1]
    pixels = []
    for image, mask in zip(logits, masks, strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                label = int(mask[row, column])
                if label != 255:
                    pixels.append((image[:, row, column].log_softmax(0), label))
    pixels.sort(key=lambda pixel: float(pixel[0][pixel[1]].detach()))  # least probable first; stable
    pixels = pixels[: max(1, round(hardest * len(pixels)))]
    weights = [1.0] * classes if weight is None else weight.tolist()
    total, norm = 0 * logits.sum(), 0.0
    for log_probabilities, label in pixels:
        target = [smoothing / classes + (1 - smoothing) * (c == label) for c in range(classes)]
        total = total - sum(target[c] * weights[c] * log_probabilities[c] for c in range(classes))
        norm += weights[label]
    return total / norm if norm else total


def confusion(predictions: Tensor, masks: Tensor, classes: int) -> list[list[int]]:
    """How often each true class (rows) was taken for each class, one pixel after another; 255 is left out."""
    counts = [[0] * classes for _ in range(classes)]
    for prediction, label in zip(predictions.flatten().tolist(), masks.flatten().tolist(), strict=True):
        if label != 255:
            counts[label][prediction] += 1
    return counts


def intersection_over_union(predictions: Tensor, masks: Tensor, classes: int) -> list[float | None]:
    """Of each class by sets of pixels; None for a class in neither; pixels with mask 255 are left out."""
    pixels = list(zip(predictions.flatten().tolist(), masks.flatten().tolist(), strict=True))
    pixels = [(predicted, true) for predicted, true in pixels if true != 255]
    found: list[float | None] = []
    for c in range(classes):
        predicted = {place for place, pixel in enumerate(pixels) if pixel[0] == c}
        true = {place for place, pixel in enumerate(pixels) if pixel[1] == c}
        found.append(len(predicted & true) / len(predicted | true) if predicted | true else None)
    return found
