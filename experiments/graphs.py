"""Train graph networks of PyG and their MGIC forms on the same data, and say how good each is.

With no arguments it makes a graph on the spot, a stochastic block model whose nodes have noisy features, and
classifies its nodes; --data graphs makes small graphs and classifies each of them. A multilayer perceptron
that sees no edges stands beside the networks. Every seed draws data and weights anew; the accuracy is that of
the last epoch on what was not trained on. The table goes to table.md in the output folder as well.

    python experiments/graphs.py
    python experiments/graphs.py --data graphs --models MLP GIN MGICGIN
    python experiments/graphs.py --data Cora --dropout 0.5
    python experiments/graphs.py --data MUTAG --epochs 50
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mgic_geo  # noqa: F401  # isort: skip  # ahead of PyG, whose import would warn
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GCN, GIN, MLP, GraphSAGE, global_mean_pool

from mgic_geo import MGICGAT, MGICGCN, MGICGIN, MGICGraphSAGE, complexity
from mgic_geo.datasets import PLANETOID, block_model, load_planetoid, load_tudataset, mixing_graphs
from mgic_geo.text_table import percent
from mgic_geo.training.claims import claim_output
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import RunConfig
from mgic_geo.training.divergence import has_diverged
from mgic_geo.training.errors import blaming, plain_errors, write_text

FORMS = MGICGCN, MGICGraphSAGE, MGICGAT, MGICGIN
PLAIN: dict[str, Any] = {"GCN": GCN, "GraphSAGE": GraphSAGE, "GAT": GAT, "GIN": GIN}
MGIC: dict[str, Any] = {f"MGIC{name}": model for name, model in zip(PLAIN, FORMS, strict=True)}
MODELS = ("MLP", *(name for pair in zip(PLAIN, MGIC, strict=True) for name in pair))


@dataclass(kw_only=True)
class Config(RunConfig):
    """Flags of this experiment."""

    data: str = "nodes"
    """nodes or graphs (made on the spot); Cora, CiteSeer or PubMed; or a set of TUDataset such as MUTAG or
    PROTEINS. What is downloaded is kept in ./data, or where the environment variable MGIC_DATA says."""
    output: Path = Path("runs/graphs")
    """Folder for the settings, the accuracies and the table."""
    models: tuple[str, ...] = MODELS
    """Which of MLP, GCN, GraphSAGE, GAT, GIN and their MGIC forms, MGICGCN, ..."""
    resume: bool = False
    """Continue the run in --output with the models and seeds whose accuracy it lacks, or start it if there is
    none yet."""
    epochs: int = 60
    """Passes over the training set; on one graph, steps."""
    batch_size: int = 32
    """Graphs per step."""
    seeds: int = 3
    """Runs of each model, with seeds from --seed on."""
    hidden: int = 128
    """Width of the hidden layers."""
    layers: int = 3
    """Number of layers."""
    group_size: int = 16
    """Channels per group on the fine levels of MGIC models."""
    coarse_size: int = 32
    """Channels of the coarsest, fully coupled level of MGIC models, at most."""
    heads: int = 4
    """Attention heads of GAT, and of every group of MGICGAT."""
    dropout: float = 0.3
    """Share of the hidden features dropped while training."""
    lr: float = 0.01
    """Largest learning rate of Adam, reached after 30 % of the steps."""
    weight_decay: float = 5e-4
    """Of Adam."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        found += [
            f"--models names {m}; give some of {', '.join(MODELS)}" for m in self.models if m not in MODELS
        ]
        if not self.models:
            found.append(f"--models is empty; give some of {', '.join(MODELS)}")
        found += self.at_least(seeds=1, hidden=1, layers=1, group_size=1, coarse_size=1, heads=1)
        if not 0 < self.lr < math.inf:
            found.append(f"--lr is {self.lr}; give a positive number")
        return found + self.at_least(weight_decay=0) + self.shares("dropout")

    @property
    def device(self) -> torch.device:
        """Where to train."""
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")


class GraphClassifier(nn.Module):
    """Node features, their mean over each graph, logits; an MLP's features know no edges."""

    def __init__(self, network: nn.Module, hidden: int, classes: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """(graphs, classes) logits."""
        nodes = self.network(x) if isinstance(self.network, MLP) else self.network(x, edge_index)
        return self.head(global_mean_pool(nodes, batch))


class NodeClassifier(nn.Module):
    """Logits of every node."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """(N, classes) logits."""
        return self.network(x) if isinstance(self.network, MLP) else self.network(x, edge_index)


def load(config: Config, seed: int) -> tuple[list[Data], list[Data]]:
    """Training and test data: graphs, or one graph twice, whose mask says which nodes count."""
    spelled = {name.lower(): name for name in ("nodes", "graphs", *PLANETOID)}
    name = spelled.get(config.data.lower(), config.data)
    if name in ("nodes", *PLANETOID):
        data = block_model(seed) if name == "nodes" else load_planetoid(name)
        parts = data.train_mask, data.test_mask
        return tuple([Data(x=data.x, edge_index=data.edge_index, y=data.y, mask=m)] for m in parts)  # type: ignore[return-value]
    graphs = mixing_graphs(seed) if name == "graphs" else load_tudataset(name)
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed)).tolist()
    cut = len(graphs) * 2 // 3
    return [graphs[i] for i in order[:cut]], [graphs[i] for i in order[cut:]]


def build(config: Config, name: str, data: Data, classes: int, seed: int) -> nn.Module:
    """The model ``name`` with random weights."""
    torch.manual_seed(seed)
    nodes = "mask" in data
    width, hidden = data.num_node_features, config.hidden
    out = classes if nodes else None
    if name == "MLP":
        widths = [width, *[hidden] * (config.layers - 1), out or hidden]
        network: nn.Module = MLP(widths, dropout=config.dropout)
    else:
        options: dict[str, Any] = {"heads": config.heads} if name.endswith("GAT") else {}
        if name in MGIC:  # whose blocks are normalised already
            options |= {"group_size": config.group_size, "coarse_size": config.coarse_size}
        else:
            options["norm"] = "batch_norm"
        kind = (PLAIN | MGIC)[name]
        network = kind(width, hidden, config.layers, out, dropout=config.dropout, **options)
    return NodeClassifier(network) if nodes else GraphClassifier(network, hidden, classes)


def train(config: Config, model: nn.Module, graphs: list[Data], seed: int) -> None:
    """Adam with a one-cycle schedule on the cross-entropy."""
    random = torch.Generator().manual_seed(seed)
    drop = len(graphs) > config.batch_size  # a last batch of one graph would upset batch normalisation
    loader = DataLoader(graphs, config.batch_size, shuffle=True, drop_last=drop, generator=random)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, max(2, steps))
    scaler = torch.amp.GradScaler(config.device.type, enabled=config.precision == "16-mixed")
    run = torch.compile(model, dynamic=True) if config.compile else model
    model.train()
    for _ in range(config.epochs):
        for batch in loader:
            batch = batch.to(config.device)
            optimizer.zero_grad()
            half = torch.float16 if config.precision == "16-mixed" else torch.bfloat16
            with torch.autocast(config.device.type, half, enabled=config.precision != "32-true"):
                logits = run(batch.x, batch.edge_index, batch.batch)
            mask = batch.mask if "mask" in batch else slice(None)
            scaler.scale(F.cross_entropy(logits[mask].float(), batch.y[mask])).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()


@torch.no_grad()
def accuracy(config: Config, model: nn.Module, graphs: list[Data]) -> float:
    """Share of right answers among the graphs, or the nodes that count."""
    model.eval()
    right = total = 0
    for batch in DataLoader(graphs, config.batch_size):  # type: ignore[arg-type]
        batch = batch.to(config.device)
        mask = batch.mask if "mask" in batch else slice(None)
        hits = model(batch.x, batch.edge_index, batch.batch).argmax(1)[mask] == batch.y[mask]
        right, total = right + int(hits.sum()), total + len(hits)
    return right / total


def run(config: Config, name: str, seed: int) -> dict[str, float]:
    """Train and judge one model."""
    training, test = load(config, seed)
    classes = 1 + max(int(graph.y.max()) for graph in training + test)  # type: ignore[union-attr]
    model = build(config, name, training[0], classes, seed).to(config.device)
    start = time.perf_counter()
    train(config, model, training, seed)
    seconds = time.perf_counter() - start
    if has_diverged(model):
        raise ValueError(f"training diverged; lower --lr, which is {config.lr:g}")
    sample = Batch.from_data_list(test[:1]).to(config.device)  # type: ignore[arg-type]
    cost = complexity(model, sample.x, sample.edge_index, sample.batch)
    return {
        "accuracy": accuracy(config, model, test),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "seconds": seconds,
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The models as Markdown: the mean over seeds, and one standard error of it."""
    lines = ["| model | parameters | multiply-adds M | test accuracy % | seconds |", "|---|--:|--:|--:|--:|"]
    for name, runs in results.items():
        values = torch.tensor([100 * r["accuracy"] for r in runs.values()], dtype=torch.float64)
        error = f" ± {values.std() / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
        first = next(iter(runs.values()))
        seconds = sum(r["seconds"] for r in runs.values()) / len(runs)
        lines.append(
            f"| {name} | {first['parameters']:,} | {first['multiply_adds'] / 1e6:,.2f} | "
            f"{values.mean():.1f}{error} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Train every model with every seed that is not done yet, and print the table."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        with blaming("--data"):
            load(config, config.seed)
        record = config.output / "results.json"
        claim_output(config, record)
        results = json.loads(record.read_text()) if record.exists() else {}
        for name in config.models:
            for seed in map(str, range(config.seed, config.seed + config.seeds)):
                if seed in results.setdefault(name, {}):
                    continue
                with blaming(f"--models {name}"):
                    done = results[name][seed] = run(config, name, int(seed))
                write_text(record, json.dumps(results, indent=1))
                figures = f"{percent(done['accuracy'])}, {done['seconds']:.1f} s"
                print(f"{name}, seed {seed}: {figures}", file=sys.stderr, flush=True)
        text = table(results)
        print(text)
        write_text(config.output / "table.md", text + "\n")


if __name__ == "__main__":
    main()
