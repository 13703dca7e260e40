"""What is said at the end of a run: figures first, then pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mgic_geo.training.config import RunConfig
from mgic_geo.training.learner import Measure
from mgic_geo.training.plots import plot_curves
from mgic_geo.training.report import Summary

ResultT = TypeVar("ResultT")
SummaryT = TypeVar("SummaryT", bound=Summary)


@dataclass(frozen=True)
class Judgement(Generic[ResultT, SummaryT]):
    """What is said of a saved model. Figures come first: pictures may fail, and must not take them along.

    Args:
        result: The model's answers.
        summary: Its figures.
        draw: Draws the pictures.
        text: The figures, to read.
        score: That of them which is marked in the learning curves.
        measure: What it measures.
        files: Names of what is written once it is judged and drawn.
        judged_on: What the split is called.
    """

    result: ResultT
    summary: SummaryT
    draw: Callable[[], None]
    text: str
    score: float
    measure: Measure
    files: tuple[str, ...]
    judged_on: str = "test"


def conclude(
    config: RunConfig, judgement: Judgement[ResultT, SummaryT], history: Sequence[dict[str, float]]
) -> None:
    """Write summary.json of a finished run, print its table, and draw its pictures and learning curves."""
    judgement.summary.save(config.output / "summary.json")
    print(f"\n{judgement.text}\n", flush=True)  # noqa: T201
    judgement.draw()
    plot_curves(
        config.output / "curves.png", history, judgement.score, judgement.measure, judgement.judged_on
    )
    print(  # noqa: T201
        f"Written to {config.output}: model.safetensors, summary.json, config.yaml, metrics.csv,\n"
        f"{', '.join(judgement.files)}, curves.png, and logs for `tensorboard --logdir`"
    )


def conclude_evaluation(config: RunConfig, judgement: Judgement[ResultT, SummaryT]) -> None:
    """Print the table of a model that was saved earlier, and draw its pictures."""
    print(f"{judgement.text}\n", flush=True)  # noqa: T201
    judgement.draw()
    print(f"Written to {config.output.resolve()}: {', '.join(judgement.files)}")  # noqa: T201
