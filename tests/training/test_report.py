import pytest
import torch

from mgic_geo.model_file import Card, ImageCard, ModelCard
from mgic_geo.training.report import device_name, example_input


def test_a_card_says_what_an_input_is_like() -> None:
    classes, colours = ("cat", "dog"), (0.5, 0.5, 0.5)
    assert example_input(ImageCard("resnet56", {}, classes, colours, colours, (8, 9))).shape == (1, 3, 8, 9)
    assert example_input(ModelCard("dgcnn", {}, classes, 64)).shape == (1, 64, 3)
    with pytest.raises(TypeError, match="a Card does not say"):
        example_input(Card("small", {}, classes))


@pytest.mark.parametrize(("threads", "text"), [(1, "CPU, 1 thread"), (3, "CPU, 3 threads")])
def test_the_cpu_is_told_by_its_threads(monkeypatch: pytest.MonkeyPatch, threads: int, text: str) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(torch.device("cpu")) == text
