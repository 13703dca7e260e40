"""What share of a training epoch on cached clouds passes outside the model."""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mgic_geo.benchmark.caching import compare_caching
from mgic_geo.benchmark.comparison import milliseconds
from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.points import MGIC, NETWORKS, WIDTHS
from mgic_geo.benchmark.report import Report, Verdict
from mgic_geo.benchmark.steps import clouds
from mgic_geo.datasets import Augment, CloudLoader, PointClouds
from mgic_geo.text_table import markdown
from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data import LoaderData
from mgic_geo.training.optimizers import OptimizerConfig
from mgic_geo.training.run import fit

__all__ = ["Stopwatch", "compare_epoch", "compare_loading", "epoch_report"]

SHARE = 0.03
"""What may pass outside the model, at most, as a share of the epoch."""
MODEL = ("forward and loss", "backward", "optimizer step")
BATCHES, REST = "batches: drawn, augmented", "the loop, metrics, logs, checkpoint"
POOL = 4
"""Points that are cached of a cloud, for each that a batch draws; ``load_clouds`` has 4,096 for 1,024."""
AUGMENT = Augment(scale=(0.8, 1.25), shift=0.0, jitter=0.0)
"""The default of ``experiments/modelnet10.py``."""


class Stopwatch:
    """Adds up the seconds of the parts of a run, between a start and a stop.

    On CUDA every reading waits for the device, so that nothing passes while the device works: what lies
    outside the model counts more there than it costs.

    Args:
        device: Where the parts run.
        kind: ``"wall"``, or ``"cpu"`` for the processor time of all threads.
    """

    def __init__(self, device: str, kind: str = "wall") -> None:
        self.on_cuda = device.startswith("cuda")
        self._read = time.process_time if kind == "cpu" and not self.on_cuda else time.perf_counter
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.total = self._started = 0.0

    def now(self) -> float:
        """Seconds since some moment."""
        if self.on_cuda:
            torch.cuda.synchronize()
        return self._read()

    def start(self) -> None:
        """Begin, and forget what was before."""
        self.seconds.clear()
        self._started = self.now()

    def stop(self) -> None:
        """End: ``total`` are the seconds since the start."""
        self.total = self.now() - self._started

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to the part ``name``."""
        begun = self.now()
        yield
        self.seconds[name] += self.now() - begun


@dataclass(kw_only=True)
class _Run(OptimizerConfig, RunConfig):
    """Settings of the run, as the script for ModelNet has them by default."""

    data: str = "normal points"


class _TimedModel(nn.Module):
    def __init__(self, model: nn.Module, watch: Stopwatch) -> None:
        super().__init__()
        self.model, self.watch = model, watch

    def forward(self, points: Tensor) -> Tensor:
        with self.watch.part(MODEL[0]):
            return self.model(points)


class _TimedClassifier(Classifier):
    """Tells the stopwatch of loss, backward pass and optimiser, and of the last epoch's start and end."""

    def __init__(self, model: nn.Module, config: _Run, watch: Stopwatch) -> None:
        super().__init__(_TimedModel(model, watch), config, config.seed)
        self.watch, self.last, self.begun = watch, config.epochs - 1, 0.0

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        with self.watch.part(MODEL[0]):
            return super().loss(logits, targets)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with self.watch.part(MODEL[1]):
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        with self.watch.part(MODEL[2]):
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        found["optimizer"].register_step_post_hook(self._stepped)
        return found

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.begun = self.watch.now()  # Lightning runs forward and backward pass inside the optimiser's step

    def _stepped(self, *_: Any) -> None:
        self.watch.seconds[MODEL[2]] += self.watch.now() - self.begun

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.current_epoch == self.last:
            self.watch.start()

    def on_train_end(self) -> None:
        self.watch.stop()


class _TimedBatches:
    def __init__(self, loader: CloudLoader, watch: Stopwatch) -> None:
        self.loader, self.watch, self.set_epoch = loader, watch, loader.set_epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = iter(self.loader)
        while True:
            with self.watch.part(BATCHES):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class _TimedData(LoaderData):
    watch: Stopwatch

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        assert isinstance(loader, CloudLoader)
        return _TimedBatches(loader, self.watch)


def compare_loading(config: Config) -> Iterator[Report]:
    """An epoch's share outside the model, and cold caching of meshes."""
    yield from compare_epoch(config)
    yield from compare_caching(config)


def compare_epoch(config: Config) -> Iterator[Report]:
    """One epoch of the MGIC network, behind one that warms up, as ``experiments/modelnet10.py`` trains it.

    An epoch has sixteen times as many steps as ``rounds``, 240 by default; one of ModelNet-10 has 249.
    """
    steps, watch = 16 * config.rounds, Stopwatch(config.device, config.clock_kind)
    size = steps * config.batch_size
    points = clouds(size, POOL * config.points)
    names = tuple(str(number) for number in range(size))
    cached = PointClouds(points, torch.arange(size) % 10, names, tuple("0123456789"))
    model = NETWORKS[MGIC](config.k, WIDTHS)
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # one line an epoch
        accelerator = "gpu" if watch.on_cuda else "cpu"
        run = _Run(epochs=2, batch_size=config.batch_size, output=Path(folder), accelerator=accelerator)
        loader = partial(CloudLoader, cached, config.batch_size, points=config.points, train=True)
        data = _TimedData(partial(loader, augment=AUGMENT))
        data.watch = watch
        fit(run, _TimedClassifier(model, run, watch), data, validate=False)
    shape = f"{config.batch_size} × {config.points:,}, k = {config.k}"
    yield epoch_report(f"Training epoch of {MGIC}, {shape}", watch.seconds, watch.total, steps)


def epoch_report(title: str, seconds: Mapping[str, float], total: float, steps: int) -> Report:
    """The table of an epoch's parts, a step; what none of them names is the rest.

    Args:
        title: Of the table.
        seconds: By name, those of MODEL and BATCHES.
        total: Seconds of the epoch.
        steps: Its steps.
    """
    named = [(name, seconds[name]) for name in (*MODEL, BATCHES)]
    outside = total - sum(seconds[name] for name in MODEL)
    parts = [*named, (REST, outside - seconds[BATCHES]), ("outside the model", outside)]
    found = Verdict(f"{title}: outside the model", outside / total, SHARE, True, _percent(outside / total))
    rows, lines = [], []
    for name, value in parts:
        rows.append({"comparison": title, "part": name, "ms": 1e3 * value / steps, "share": value / total})
        lines.append([name, milliseconds(1e3 * value / steps), _percent(value / total)])
    lines[-1][-1] += f"; {found.words}"
    return Report(title, rows, markdown(["part", "ms a step", "share"], lines), [found])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
