from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgic_geo.training.claims import claim_folder, claim_output
from mgic_geo.training.config import RunConfig
from mgic_geo.training.errors import UsageError


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(data="shapes", output=tmp_path / "run")


@pytest.fixture
def checkpoint(config: RunConfig) -> Path:
    return config.output / "last.ckpt"


def test_the_output_folder_gets_a_record_that_yaml_reads(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    record = yaml.safe_load((config.output / "config.yaml").read_text())
    assert record["output"] == str(config.output)
    assert record["resume"] is False


def test_a_file_is_no_folder(config: RunConfig, checkpoint: Path) -> None:
    config.output.touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        claim_output(config, checkpoint)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        claim_folder(config.output, config, "results.json")


def test_a_finished_epoch_is_never_overwritten(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    claim_output(config, checkpoint)  # nothing was trained yet, so nothing can be lost
    checkpoint.touch()
    with pytest.raises(UsageError, match="already holds a run"):
        claim_output(config, checkpoint)


def test_a_run_from_before_a_flag_goes_on_with_its_default(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    checkpoint.touch()
    record = config.output / "config.yaml"
    older = {name: value for name, value in yaml.safe_load(record.read_text()).items() if name != "epochs"}
    record.write_text(yaml.safe_dump(older))
    with pytest.raises(UsageError, match=f"--epochs: the run has {config.epochs}, you gave 7"):
        claim_output(replace(config, resume=True, epochs=7), checkpoint)
    claim_output(replace(config, resume=True), checkpoint)
    assert yaml.safe_load(record.read_text())["epochs"] == config.epochs


def test_resuming_needs_the_same_settings(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    checkpoint.touch()
    claim_output(replace(config, resume=True), checkpoint)
    claim_output(replace(config, resume=True), checkpoint)
    with pytest.raises(UsageError, match=r"--epochs: the run has 30, you gave 7(.|\n)*another --output"):
        claim_output(replace(config, resume=True, epochs=7), checkpoint)
    (config.output / "config.yaml").unlink()
    with pytest.raises(UsageError, match=r"config\.yaml is missing"):
        claim_output(replace(config, resume=True), checkpoint)


@dataclass(kw_only=True)
class FilesConfig(RunConfig):
    workers: int | None = None
    verify: bool = True
    skip_corrupt: bool = False


def test_what_cannot_change_the_result_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pets", "cats"):
        (tmp_path / folder).mkdir()
    first = FilesConfig(data="pets", output=tmp_path / "run")
    checkpoint = first.output / "last.ckpt"
    claim_output(first, checkpoint)
    checkpoint.touch()
    resumed = replace(first, resume=True)
    for changes in (
        {"workers": 3, "verify": False},
        {"data": str(tmp_path / "pets")},
        {"data": "./cats/../pets/"},
    ):
        claim_output(replace(resumed, **changes), checkpoint)
    for changes in ({"data": "cats"}, {"data": "gone"}, {"skip_corrupt": True}):
        with pytest.raises(UsageError, match=r"cannot resume .* with other settings"):
            claim_output(replace(resumed, **changes), checkpoint)


def test_a_run_of_another_version_is_told_as_such(config: RunConfig, checkpoint: Path) -> None:
    """Advice to repeat a flag that is gone could not be followed."""
    claim_output(config, checkpoint)
    checkpoint.touch()
    with (config.output / "config.yaml").open("a") as record:
        record.write("former_flag: 1\n")
    with pytest.raises(UsageError, match="another script or version made it, with --former-flag"):
        claim_output(replace(config, resume=True), checkpoint)


def test_a_moved_run_may_go_on(config: RunConfig, checkpoint: Path, tmp_path: Path) -> None:
    claim_output(config, checkpoint)
    checkpoint.touch()
    config.output.rename(tmp_path / "moved")
    claim_output(replace(config, resume=True, output=tmp_path / "moved"), tmp_path / "moved" / "last.ckpt")


def test_a_folder_is_claimed_for_good_by_its_results_only(config: RunConfig) -> None:
    def claim(**changes: Any) -> None:
        claim_folder(config.output, replace(config, **changes), "results.json")

    claim(seed=1)
    claim()  # the run before it ended without a result
    record = config.output / "config.yaml"
    assert yaml.safe_load(record.read_text())["seed"] == 0
    (config.output / "results.json").touch()
    claim()  # the same again
    with pytest.raises(UsageError, match="already holds a run with other settings"):
        claim(seed=1)
    (config.output / "results.json").unlink()
    for others in ("lr: 1\nseed: 0\n", "a note", "\t{"):
        record.write_text(others)
        with pytest.raises(UsageError, match="is the record of something else"):
            claim()
        assert record.read_text() == others
