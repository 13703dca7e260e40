import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgic_geo.model_file import ImageCard, ModelCard, load_model, save_model

CARD = ModelCard("mgic_dgcnn", {"k": 4, "dropout": 0.0, "coarse_size": 16}, ("chair", "sofa", "bed"), 32)


def test_the_file_alone_rebuilds_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CARD.build().eval()
    save_model(tmp_path / "model.safetensors", model, CARD)
    points = torch.randn(2, 32, 3)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded, card = load_model(path)
        assert card == CARD
        assert not loaded.training
        torch.testing.assert_close(loaded(points), model(points), rtol=0, atol=0)


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    model = CARD.build()
    model.compile()
    for name in ("a", "b"):
        save_model(tmp_path / name, model, CARD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not any("_orig_mod" in name for name in load_file(tmp_path / "a"))


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        load_model(tmp_path)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no safetensors file"):
        load_model(tmp_path / "junk")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="does not say which model"):
        load_model(tmp_path / "other")


def test_images_have_a_card_of_their_own(tmp_path: Path) -> None:
    card = ImageCard("resnet56", {}, ("cat", "dog"), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), (32, 32))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    assert load_model(tmp_path, ImageCard)[1] == card
    with pytest.raises(ValueError, match="holds resnet56, whose card is no ModelCard"):
        load_model(tmp_path)


def test_whoever_may_read_other_files_may_read_the_model(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", CARD.build(), CARD)
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("model.safetensors", "other")]
    assert modes[0] == modes[1]


def test_the_card_of_images_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules['h5py'] = sys.modules['torchvision'] = None\n"
        "from mgic_geo import ImageCard\n"
        "card = ImageCard('resnet20', {}, ('cat', 'dog'), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), (32, 32))\n"
        "assert card.normalization.mean == card.mean"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
