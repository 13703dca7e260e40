"""How good a saved classifier is, in figures and pictures, and what is said at the end of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor, nn

from mgic_geo.complexity import complexity
from mgic_geo.model_file import Card
from mgic_geo.training.config import RunConfig, blaming
from mgic_geo.training.evaluate import Evaluation, evaluate
from mgic_geo.training.plots import plot_confusion, plot_curves
from mgic_geo.training.report import Summary, summarize
from mgic_geo.training.run import Fitted

WRITTEN = (
    "model.safetensors, summary.json, config.yaml, metrics.csv, the pictures\n"
    "curves.png, confusion.png and gallery.png, and logs for `tensorboard --logdir`"
)


ResultT = TypeVar("ResultT")
SummaryT = TypeVar("SummaryT", bound=Summary)


@dataclass(frozen=True)
class Judgement(Generic[ResultT, SummaryT]):
    """
    What is said of a saved model. Figures come first: pictures may fail, and must not take them along.

    Args:
        result: the model's answers.
        summary: its figures.
        draw: draws the pictures beside the model.
    """

    result: ResultT
    summary: SummaryT
    draw: Callable[[], None]


def judge(
    path: Path,
    model: nn.Module,
    card: Card,
    *,
    data: str,
    example: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    gallery: Callable[[Path, Evaluation], None],
    fitted: Fitted,
) -> Judgement[Evaluation, Summary]:
    """
    Evaluate the model saved at ``path``; its pictures are confusion.png and gallery.png.

    Args:
        path: the model's file, or the folder it is in.
        model: the model.
        card: its card.
        data: name of the data, for the summary.
        example: an input of one sample, whose cost is counted.
        batches: the test batches, in their order.
        gallery: draws the hardest samples to the PNG it is given.
        fitted: the training's rows, none where nothing was trained, and the device to evaluate on.

    Raises:
        UsageError: the model's answers are not finite, or a sample cannot be read.
    """
    cost = complexity(model, example)
    with blaming("evaluation"):
        result = evaluate(model, batches, card.classes, fitted.device)
    summary = summarize(
        card.model,
        data,
        result,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        device=fitted.device,
        history=fitted.rows,
    )

    def draw() -> None:
        folder = path if path.is_dir() else path.parent
        plot_confusion(folder / "confusion.png", result)
        gallery(folder / "gallery.png", result)

    return Judgement(result, summary, draw)


def conclude(config: RunConfig, fitted: Fitted, judgement: Judgement[Evaluation, Summary]) -> None:
    """Write summary.json of a finished run, print its table, and draw its pictures."""
    judgement.summary.save(config.output / "summary.json")
    print(f"\n{judgement.summary.table()}\n", flush=True)  # noqa: T201
    judgement.draw()
    plot_curves(config.output / "curves.png", fitted.rows, judgement.result.accuracy)
    print(f"Written to {config.output}: {WRITTEN}")  # noqa: T201


def conclude_evaluation(judgement: Judgement[Evaluation, Summary]) -> None:
    """Print the table of a model that was saved earlier, and draw its pictures."""
    print(f"{judgement.summary.table()}\n", flush=True)  # noqa: T201
    judgement.draw()
    print("confusion.png and gallery.png are beside the model")  # noqa: T201
