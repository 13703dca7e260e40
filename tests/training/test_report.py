import pytest

from mgic_geo.model_file import Card, ImageCard, ModelCard
from mgic_geo.training.report import example_input


def test_a_card_says_what_an_input_is_like() -> None:
    classes, colours = ("cat", "dog"), (0.5, 0.5, 0.5)
    assert example_input(ImageCard("resnet56", {}, classes, colours, colours, (8, 9))).shape == (1, 3, 8, 9)
    assert example_input(ModelCard("dgcnn", {}, classes, 64)).shape == (1, 64, 3)
    with pytest.raises(TypeError, match="a Card does not say"):
        example_input(Card("small", {}, classes))
