"""
Time one training step of MGIC-DGCNN beside its peers, interleaved in one run.

The peers are the same network built from PyG's EdgeConv on torch-cluster's k-NN (needs the extra
``cluster``), and this package's own dense DGCNN. Prints medians, spreads and ratios as Markdown.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo import create_model
from mgic_geo.graph.knn_backends import available
from mgic_geo.models import DGCNN


@dataclass
class Config:
    """What to measure."""

    batch_size: int = 16
    """Clouds in a step."""
    points: int = 1024
    """Points in a cloud."""
    k: int = 10
    """Neighbours of a point, itself counted."""
    rounds: int = 15
    """Timed steps of each model; they take turns."""
    output: Path | None = None
    """Write the figures to this JSON file, too."""


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


def main(config: Config) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
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
    steps = {name: step_of(model.to(device), points, labels) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(config.rounds + 2):
        for name, step in steps.items():
            seconds = step()
            if round_ >= 2:  # the first two warm up
                times[name].append(seconds)
    base = statistics.median(next(iter(times.values())))
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        spread = [statistics.quantiles(seconds, n=4)[i] for i in (0, 2)] if len(seconds) > 1 else [median] * 2
        rows.append(
            {
                "model": name,
                "median_ms": median * 1e3,
                "quartiles_ms": [s * 1e3 for s in spread],
                "ratio": median / base,
            }
        )
    print(f"One training step on {config.batch_size} clouds × {config.points} points, k = {config.k}")
    print(f"{processor()}; torch {torch.__version__}, torch-geometric {version('torch-geometric')}\n")
    print("| model | median ms | quartiles | ratio |\n|---|---|---|---|")
    for row in rows:
        low, high = row["quartiles_ms"]
        print(f"| {row['model']} | {row['median_ms']:.0f} | {low:.0f} to {high:.0f} | {row['ratio']:.2f} |")
    if config.output:
        temporary = config.output.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"config": asdict(config), "device": processor(), "rows": rows}, indent=1, default=str)
        )
        temporary.replace(config.output)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
