"""Learning rates over a run, as functions of the step: warm-up, then cosine, steps or a polynomial."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "steps", "poly"]


def rate_factor(
    schedule: Schedule, step: int, steps: int, epochs: int, warmup: float = 0.0, drop_every: int = 30
) -> float:
    """Return the share of the highest learning rate that step ``step`` = 0 … ``steps`` − 1 is trained with.

    With w steps of warm-up the factor is (step + 1) / (w + 1) before step w. From there, with the progress
    p = (step − w) / (steps − w) in 0 … 1, ``cosine`` gives (1 + cos πp) / 2 and ``poly`` (1 − p)^0.9.
    ``steps`` gives 10^−⌊epoch / drop_every⌋, where the epoch counts from 0.

    Args:
        schedule: Its name.
        step: The optimiser's step.
        steps: All steps of the run.
        epochs: All epochs of the run.
        warmup: Epochs of warm-up.
        drop_every: Epochs between drops.
    """
    rising = round(warmup * steps / epochs)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "steps":
        return 0.1 ** (step * epochs // steps // drop_every)
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    return (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else (1 - progress) ** 0.9
