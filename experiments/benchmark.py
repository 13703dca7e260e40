"""
Time one training step of the MGIC networks beside their peers, interleaved in one run.

points: MGIC-DGCNN, this package's own dense DGCNN, and the same network built from PyG's EdgeConv on
torch-cluster's k-NN (needs the extra ``cluster``). images: MGIC-ResNet-56 (8, 16) and ResNet-56 on images of
32×32, channels first and last. layers: PyG's layers in 16 groups of 16 channels, forward and backward, on the
fast path and as one small layer a group, in processor time if there is one thread.
Prints medians, spreads and ratios as Markdown.
"""

from __future__ import annotations

import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo import create_model
from mgic_geo.files import replacing
from mgic_geo.graph.grouped import GroupedConv, grouped
from mgic_geo.graph.grouped_fast import FAST
from mgic_geo.graph.knn_backends import available
from mgic_geo.graph.survey import example_graph, inputs_of, options_of
from mgic_geo.models import DGCNN
from mgic_geo.training.memory import keep_memory


@dataclass
class Config:
    """What to measure."""

    parts: tuple[Literal["points", "images", "layers"], ...] = ("points", "images")
    """Which comparisons."""
    batch_size: int = 16
    """Clouds in a step."""
    points: int = 1024
    """Points in a cloud, or nodes of the layers' graph."""
    k: int = 10
    """Neighbours of a point, itself counted, or degree of the layers' graph."""
    images: int = 64
    """Images in a step."""
    layers: tuple[str, ...] = ()
    """Names of the layers; all that have a fast path, if none."""
    new_graphs: bool = False
    """Give the layers another graph at every step, so that nothing known of one serves twice."""
    rounds: int = 15
    """Timed steps of each model; they take turns."""
    output: Path | None = None
    """Write the figures to this JSON file, too."""


@dataclass(frozen=True)
class Row:
    """Times of one model's step in milliseconds, and the ratio of its median to the first model's."""

    model: str
    median_ms: float
    quartiles_ms: tuple[float, float]
    ratio: float


@dataclass(frozen=True)
class LayerRow:
    """Median times of a layer on its two paths in milliseconds, forward and backward, and their ratio."""

    layer: str
    fast_ms: float
    general_ms: float
    ratio: float


class PyGDGCNN(nn.Module):
    """The dense DGCNN of the same widths, from PyG's EdgeConv on torch-cluster's k-NN graph."""

    def __init__(self, k: int) -> None:
        super().__init__()
        from torch_geometric.nn import EdgeConv  # after our package, which hides PyG's own import warning

        ours = DGCNN(conv="edge", k=k)
        self.k, self.embed, self.head = k, ours.embed, nn.Sequential(ours.hidden, ours.classifier)
        self.blocks = nn.ModuleList(
            EdgeConv(
                nn.Sequential(nn.Linear(2 * a, b, bias=False), nn.BatchNorm1d(b), nn.LeakyReLU(0.2)),
                aggr="max",
            )
            for a, b in ((3, 64), (64, 64), (64, 128), (128, 256))
        )

    def forward(self, points: Tensor) -> Tensor:
        from torch_cluster import knn_graph  # type: ignore[import-not-found]

        clouds, size, _ = points.shape
        batch = torch.arange(clouds, device=points.device).repeat_interleave(size)
        x, outputs = points.reshape(clouds * size, -1), []
        for block in self.blocks:
            x = block(x, knn_graph(x, self.k, batch, loop=True))
            outputs.append(x)
        embedded = self.embed(torch.cat(outputs, dim=-1)).view(clouds, size, -1)
        return self.head(torch.cat([embedded.amax(1), embedded.mean(1)], dim=-1))


def step_of(model: nn.Module, points: Tensor, labels: Tensor) -> Callable[[], float]:
    """One timed training step (forward, backward, optimiser), in seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(points), labels).backward()
        optimizer.step()
        if points.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def processor() -> str:
    """The processor's (or GPU's) name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def point_steps(config: Config, device: str) -> dict[str, Callable[[], float]]:
    """Steps of the point-cloud networks, all on the same clouds."""
    points = torch.randn(config.batch_size, config.points, 3, device=device)
    points /= points.norm(dim=-1).amax(1).view(-1, 1, 1)
    labels = torch.randint(0, 10, (config.batch_size,), device=device)
    models: dict[str, nn.Module] = {
        "MGIC-DGCNN (16, 32)": create_model("mgic_dgcnn", k=config.k),
        "DGCNN, our dense EdgeConv": create_model("dgcnn", k=config.k),
    }
    if available("torch_cluster"):
        models["DGCNN, PyG EdgeConv + torch-cluster"] = PyGDGCNN(config.k)
    else:
        print("torch-cluster is not installed: no PyG peer (extra: cluster)\n")
    return {name: step_of(model.to(device), points, labels) for name, model in models.items()}


def image_steps(config: Config, device: str) -> dict[str, Callable[[], float]]:
    """Steps of the CIFAR networks in both layouts, all on the same images."""
    images = torch.randn(config.images, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (config.images,), device=device)
    steps = {}
    for layout, name in ((torch.channels_last, "channels last"), (torch.contiguous_format, "channels first")):
        for title, model in (("MGIC-ResNet-56 (8, 16)", "mgic_resnet56_g8_c16"), ("ResNet-56", "resnet56")):
            network = create_model(model).to(device=device, memory_format=layout)  # type: ignore[call-overload]
            steps[f"{title}, {name}"] = step_of(network, images.to(memory_format=layout), labels)
    return steps


def measure_layers(config: Config, device: str) -> list[LayerRow]:
    """Times of every layer of the table on both paths, which take turns."""
    x = torch.randn(config.points, 256, device=device)
    edge_index = example_graph(config.points, config.k).to(device)
    rows = []
    for conv in FAST:
        name = conv.__name__  # type: ignore[attr-defined]
        if config.layers and name not in config.layers:
            continue
        options = options_of(conv)  # type: ignore[arg-type]
        inputs = inputs_of(conv, x, edge_index, options)  # type: ignore[arg-type]
        inputs = {key: value.to(device) for key, value in inputs.items()}
        paths = {
            "fast": grouped(conv, 16)(256, 256, **options),
            "general": GroupedConv(conv, 16, 256, 256, **options),
        }
        graphs = [edge_index]
        if config.new_graphs:
            graphs = [example_graph(config.points, config.k, seed).to(device) for seed in range(16)]
        steps = {path: layer_step(layer.to(device), inputs, graphs) for path, layer in paths.items()}
        fast, general = (row.median_ms for row in measure(steps, config.rounds))
        rows.append(LayerRow(name, fast, general, general / fast))
    return rows


def layer_step(layer: nn.Module, inputs: dict[str, Tensor], graphs: Sequence[Tensor]) -> Callable[[], float]:
    """One timed forward and backward pass, to the weights and to x, in seconds; the graphs take turns."""
    inputs = {**inputs, "x": inputs["x"].clone().requires_grad_()}
    graph = next(name for name in inputs if name in ("edge_index", "hyperedge_index"))
    upstream, turns = torch.randn_like(layer(**inputs)), itertools.cycle(graphs)
    # Others on the machine make no difference to the time of one thread, as a process counts it.
    alone = torch.get_num_threads() == 1 and upstream.device.type == "cpu"
    clock = time.process_time if alone else time.perf_counter

    def step() -> float:
        layer.zero_grad()
        inputs["x"].grad, inputs[graph] = None, next(turns)
        start = clock()
        layer(**inputs).backward(upstream)
        if upstream.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    return step


def measure(steps: dict[str, Callable[[], float]], rounds: int) -> list[Row]:
    """Let the steps take turns for ``rounds`` rounds, behind two that warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 2):
        for name, step in steps.items():
            seconds = step()
            if round_ >= 2:
                times[name].append(1e3 * seconds)
    base, rows = statistics.median(next(iter(times.values()))), []
    for name, values in times.items():
        low, median, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        )
        rows.append(Row(name, median, (low, high), median / base))
    return rows


def print_layers(rows: Sequence[LayerRow], config: Config) -> None:
    """The table of layers, and the geometric mean of the ratios."""
    print(
        f"\n16 groups of 16 channels, {config.points} nodes of degree {config.k}\n\n"
        "| layer | fast ms | general ms | ratio |\n|---|---|---|---|"
    )
    for row in rows:
        print(f"| {row.layer} | {row.fast_ms:.1f} | {row.general_ms:.1f} | {row.ratio:.1f} |")
    print(f"| geometric mean | | | {statistics.geometric_mean(row.ratio for row in rows):.1f} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print, with the arguments ``argv`` or those of the command line."""
    config = tyro.cli(Config, args=argv, description=__doc__)
    torch.manual_seed(0)
    keep_memory()  # as the training scripts do
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{processor()}; torch {torch.__version__}, torch-geometric {version('torch-geometric')}")
    parts = {
        "points": (
            f"{config.batch_size} clouds × {config.points} points, k = {config.k}",
            point_steps,
        ),
        "images": (f"{config.images} images of 32×32", image_steps),
    }
    results: dict[str, Sequence[Row | LayerRow]] = {}
    for part in config.parts:
        if part == "layers":
            results[part] = rows = measure_layers(config, device)
            print_layers(rows, config)
            continue
        title, steps = parts[part]
        results[part] = rows = measure(steps(config, device), config.rounds)
        print(
            f"\nOne training step on {title}\n\n| model | median ms | quartiles | ratio |\n|---|---|---|---|"
        )
        for row in rows:
            low, high = row.quartiles_ms
            print(f"| {row.model} | {row.median_ms:.0f} | {low:.0f} to {high:.0f} | {row.ratio:.2f} |")
    if config.output:
        rows = {part: [asdict(row) for row in rows] for part, rows in results.items()}
        content = {"config": asdict(config), "device": processor(), "rows": rows}
        with replacing(config.output) as temporary:
            temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
