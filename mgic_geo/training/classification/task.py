"""What classifiers of images and of point clouds have in common: how they learn, and how they are judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from mgic_geo.complexity import complexity
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
        """Evaluate a saved model; its pictures are not drawn yet."""
        cost = complexity(model, example_input(card))
        with blaming("evaluation"):
            batches = self.loader(config, samples, card, False)(device=device)
            result = evaluate(model, batches, card.classes, device)
        summary = summarize(
            card.model,
            config.data,
            result,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            device=device,
            history=history,
        )

        def draw() -> None:
            plot_confusion(config.output / "confusion.png", result)
            self.gallery(config.output / "gallery.png", samples, card, result)

        return Judgement(
            result,
            summary,
            draw,
            text=summary.table(),
            score=result.accuracy,
            measure=ACCURACY,
            files=("confusion.png", "gallery.png"),
        )
