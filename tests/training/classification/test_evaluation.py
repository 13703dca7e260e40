import math

import pytest
import torch
from torch import Tensor, nn

from mgic_geo.training.classification.evaluation import Evaluation, evaluate

NAMES = ("a", "b", "c")


def answers(predictions: list[int], labels: list[int]) -> Evaluation:
    return Evaluation(torch.eye(3)[predictions], torch.tensor(labels), NAMES)


def test_figures_by_hand() -> None:
    result = answers([0, 0, 0, 1, 0], [0, 0, 0, 1, 1])
    assert result.confusion.tolist() == [[3, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 5)
    assert result.class_accuracy == pytest.approx((1 + 1 / 2) / 2)  # class c has no samples
    assert result.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 5))


def test_top_k_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.8, 0.1, 0.1]])
    result = Evaluation(probabilities, torch.tensor([0, 1, 2, 2]), NAMES)
    assert [result.top(k) for k in (1, 2, 3)] == [1 / 4, 2 / 4, 1]  # of equals the first class goes first
    with pytest.raises(ValueError, match="1 … 3"):
        result.top(4)


def test_top_1_is_the_accuracy_also_among_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randint(3, (200, 6), generator=generator) / 2.0
    labels = torch.randint(6, (200,), generator=generator)
    result = Evaluation(probabilities, labels, tuple("abcdef"))
    assert result.top(1) == pytest.approx(result.accuracy)
    assert result.top(6) == 1


def test_worst_first() -> None:
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0], [1.0, 0.0, 0.0]])
    assert Evaluation(probabilities, torch.tensor([0, 0, 0]), NAMES).worst_first().tolist() == [1, 0, 2]


def test_evaluation_is_in_evaluation_mode_in_the_order_of_the_batches() -> None:
    model = nn.Dropout(0.99).train()
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    batches: list[tuple[Tensor, Tensor]] = list(
        zip(logits.split(2), torch.tensor([0, 1, 2, 0, 1]).split(2), strict=True)
    )
    result = evaluate(model, batches, NAMES)
    torch.testing.assert_close(result.probabilities, logits.softmax(1))
    assert result.labels.tolist() == [0, 1, 2, 0, 1]


def test_a_diverged_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="lower --lr"):
        evaluate(nn.Identity(), [(torch.full((1, 3), math.nan), torch.tensor([0]))], NAMES)
