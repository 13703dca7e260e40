import pytest
import torch
from torch import nn

from mgic_geo.training import ACCURACY, MIOU, Classifier, ImageOptimizerConfig, Measure
from mgic_geo.training.learner import Score


def test_counts_add_up_over_batches() -> None:
    score = Score((2,), Classifier.score)
    score.update(torch.tensor([1, 4]))
    score.update(torch.tensor([5, 8]))
    assert float(score.compute()) == 0.5
    score.reset()
    score.update(torch.tensor([3, 3]))
    assert float(score.compute()) == 1.0


def test_a_step_gives_the_loss_and_what_the_measure_is_computed_from() -> None:
    module = Classifier(nn.Identity(), ImageOptimizerConfig(label_smoothing=0.0))
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    outputs = module.training_step((logits, labels), 0)
    assert float(outputs["loss"]) == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert outputs["counts"].tolist() == [2, 3]
    assert float(module.score(outputs["counts"])) == pytest.approx(2 / 3)
    assert float(module.train_score.compute()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", [ACCURACY, MIOU, Measure("top5", "top-5", "Top-5", "share")])
def test_figures_are_logged_under_the_measures_key(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, object] = {}
    module = Classifier(nn.Identity(), ImageOptimizerConfig())
    monkeypatch.setattr(Classifier, "measure", measure)
    monkeypatch.setattr(module, "log_dict", logged.update)
    module.on_train_epoch_end()
    module.on_validation_epoch_end()
    assert list(logged) == ["train_loss", f"train_{measure.key}", "val_loss", f"val_{measure.key}"]
