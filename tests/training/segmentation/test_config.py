from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mgic_geo.training.segmentation.config import SegmentationConfig


@dataclass(kw_only=True)
class Config(SegmentationConfig):
    data: str = "scenes"
    output: Path = Path("runs/scenes")
    model: str = "lraspp_mobilenetv3_small"


def test_the_defaults_are_sound() -> None:
    assert Config().problems() == []


@pytest.mark.parametrize("ohem", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_pixels(ohem: float) -> None:
    (problem,) = replace(Config(), ohem=ohem).problems()
    assert f"--ohem is {ohem}; give more than 0" in problem
    assert replace(Config(), ohem=0.25).problems() == []


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_of_the_widths(factor: float) -> None:
    mgic = replace(Config(), model="lraspp_mgic_mobilenetv3_small")
    (problem,) = replace(mgic, expansion=factor).problems()
    assert f"--expansion is {factor}; give more than 0" in problem
    assert replace(mgic, expansion=0.97).problems() == []
    assert replace(mgic, expansion=0.97, group_size=16).model_kwargs() == {
        "group_size": 16,
        "expansion": 0.97,
    }
    (problem,) = replace(Config(), expansion=0.97).problems()
    assert "belong to MGIC models; leave out --expansion for lraspp_mobilenetv3_small" in problem


@pytest.mark.parametrize("momentum", [0.0, 1.01, float("nan")])
def test_a_share_of_the_running_statistics(momentum: float) -> None:
    (problem,) = replace(Config(), norm_momentum=momentum).problems()
    assert f"--norm-momentum is {momentum}; give more than 0" in problem
    assert replace(Config(), norm_momentum=None).problems() == []


@pytest.mark.parametrize(
    ("change", "gpus", "refused"),
    [
        ({"accelerator": "cpu"}, 1, True),
        ({"accelerator": "auto"}, 0, True),
        ({"accelerator": "auto"}, 1, False),
        ({"accelerator": "cpu", "channels_last": False}, 0, False),
        ({"accelerator": "cpu", "precision": "32-true"}, 0, False),
    ],
)
def test_wrong_gradients_are_refused_where_they_occur(
    change: dict[str, Any], gpus: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = replace(Config(precision="bf16-mixed", channels_last=True), **change)
    assert [problem for problem in config.problems() if "wrong gradients on CPU" in problem] == (
        config.problems() if refused else []
    )
    assert bool(config.problems()) == refused
