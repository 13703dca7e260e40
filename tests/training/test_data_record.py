from dataclasses import replace
from pathlib import Path

import pytest

from mgic_geo.training.config import RunConfig
from mgic_geo.training.data_record import claim_data
from mgic_geo.training.errors import UsageError


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(data="pets", output=tmp_path)


def test_other_data_is_refused_once_there_is_a_checkpoint(config: RunConfig) -> None:
    checkpoint = config.output / "last.ckpt"
    claim_data(config, checkpoint, ("Äffchen", "dog"), 9)
    claim_data(config, checkpoint, ("Äffchen", "cat"), 8)  # nothing was trained yet
    checkpoint.touch()
    for _ in range(2):
        claim_data(replace(config, resume=True), checkpoint, ("Äffchen", "cat"), 8)
    assert "Äffchen" in (config.output / "data.yaml").read_text(encoding="utf-8")
    for classes, samples, message in (
        (("Äffchen", "cat"), 1008, "it had 8 training samples and has 1008"),
        (("Äffchen", "dog"), 8, "it lacks the classes cat; it has the new classes dog"),
        (("cat", "Äffchen"), 8, "its classes are in another order"),
    ):
        with pytest.raises(UsageError, match=rf"^the data in pets changed since the run began: {message};"):
            claim_data(replace(config, resume=True), checkpoint, classes, samples)


def test_a_run_without_the_record_goes_on_and_gets_it(config: RunConfig) -> None:
    checkpoint = config.output / "last.ckpt"
    checkpoint.touch()
    claim_data(replace(config, resume=True), checkpoint, ("cat", "dog"), 8)
    with pytest.raises(UsageError, match="changed since"):
        claim_data(replace(config, resume=True), checkpoint, ("cat", "dog"), 9)
