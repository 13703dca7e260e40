from pathlib import Path

import pytest

from mgic_geo.training import ImageCard, UsageError, load_for, save_model

NAMES = tuple(f"class {i}" for i in range(12))


def saved(path: Path, classes: tuple[str, ...]) -> Path:
    card = ImageCard("resnet56", {"depths": [1, 1, 1]}, classes, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), (8, 8))
    save_model(path / "model.safetensors", card.build(), card)
    return path


def test_a_saved_model_is_rebuilt_for_its_own_classes_only(tmp_path: Path) -> None:
    path = saved(tmp_path, NAMES)
    model, card = load_for(path, ImageCard, list(NAMES), "pets")
    assert not model.training
    assert card.classes == NAMES
    with pytest.raises(UsageError, match=r"classes class 0, class 1, .* has class 1, class 0"):
        load_for(path, ImageCard, ["class 1", "class 0", *NAMES[2:]], "pets")
    with pytest.raises(UsageError, match=r"model .*: there is no model at"):
        load_for(path / "gone", ImageCard, NAMES, "pets")


def test_of_many_classes_the_message_names_those_that_differ(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_for(saved(tmp_path, NAMES), ImageCard, (*NAMES[:-1], "cat"), "pets")
    message = str(caught.value)
    assert "the model knows the classes class 11, class 0, " in message
    assert "but --data pets has cat, class 0, class 1, " in message
    assert message.count("… (12 in all)") == 2
    assert "class 10" not in message
