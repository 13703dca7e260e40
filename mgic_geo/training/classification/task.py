"""What classifiers of images and of point clouds have in common: how they learn, and how they are judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mgic_geo.complexity import complexity
from mgic_geo.model_file import Card
from mgic_geo.training.classification.classifier import ACCURACY, Classifier
from mgic_geo.training.classification.evaluation import Evaluation, evaluate
from mgic_geo.training.classification.plots import plot_confusion
from mgic_geo.training.classification.report import ClassifierSummary, summarize
from mgic_geo.training.errors import blaming
from mgic_geo.training.outcome import Judgement
from mgic_geo.training.report import example_input
from mgic_geo.training.task import CardT, ConfigT, SamplesT, Task


class ClassificationTask(Task[ConfigT, SamplesT, CardT]):
    """The task to tell classes apart; its pictures are confusion.png and gallery.png."""

    @abstractmethod
    def gallery(self, path: Path, samples: SamplesT, card: CardT, result: Evaluation) -> None:
        """Draw the hardest samples to the PNG ``path``."""

    def learner(self, config: ConfigT, card: CardT, samples: SamplesT) -> Callable[[nn.Module], Classifier]:
        """Return what makes a :class:`Classifier`."""
        if len(card.classes) < 2:
            raise ValueError("it has one class only; a classifier needs two or more")
        return lambda model: Classifier(model, config, config.seed)

    def judge(
        self,
        config: ConfigT,
        model: nn.Module,
        card: CardT,
        samples: SamplesT,
        device: torch.device,
        history: Sequence[dict[str, float]],
    ) -> Judgement[Evaluation, ClassifierSummary]:
        """Evaluate a saved model."""
        return judge(
            config.output,
            model,
            card,
            data=config.data,
            example=example_input(card),
            batches=self.loader(config, samples, card, False)(device=device),
            gallery=lambda file, result: self.gallery(file, samples, card, result),
            device=device,
            history=history,
        )


def judge(
    folder: Path,
    model: nn.Module,
    card: Card,
    *,
    data: str,
    example: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    gallery: Callable[[Path, Evaluation], None],
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> Judgement[Evaluation, ClassifierSummary]:
    """Evaluate a saved model; its pictures are confusion.png and gallery.png.

    Args:
        folder: Gets the pictures.
        model: The model.
        card: Its card.
        data: Name of the data, for the summary.
        example: An input of one sample, whose cost is counted.
        batches: The test batches, in their order.
        gallery: Draws the hardest samples to the PNG it is given.
        device: Where to evaluate.
        history: The training's epochs; none where nothing was trained.

    Raises:
        UsageError: If the model's answers are not finite, or a sample cannot be read.
    """
    cost = complexity(model, example)
    with blaming("evaluation"):
        result = evaluate(model, batches, card.classes, device)
    summary = summarize(
        card.model,
        data,
        result,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        device=device,
        history=history,
    )

    def draw() -> None:
        plot_confusion(folder / "confusion.png", result)
        gallery(folder / "gallery.png", result)

    return Judgement(
        result,
        summary,
        draw,
        text=summary.table(),
        score=result.accuracy,
        measure=ACCURACY,
        files=("confusion.png", "gallery.png"),
    )
