from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from mgic_geo.training.errors import UsageError
from mgic_geo.training.image_config import PAPER, ImageConfig, parse_recipe


@dataclass(kw_only=True)
class Config(ImageConfig):
    families = ("resnet56",)

    data: str = "pets"
    output: Path = Path("runs/pets")
    model: str = "mgic_resnet56"
    recipe: Literal["modern", "paper"] = "modern"
    """Decides the defaults."""


def test_a_recipe_sets_the_defaults() -> None:
    recipes = {"paper": PAPER | {"lr": 0.5}}
    assert parse_recipe(Config, recipes, [], None) == Config()
    paper = parse_recipe(Config, recipes, ["--epochs", "7", "--recipe", "paper", "--ema", "0.5"], None)
    assert (paper.recipe, paper.schedule, paper.warmup, paper.lr) == ("paper", "steps", 0.0, 0.5)
    assert (paper.epochs, paper.ema) == (7, 0.5)
    assert paper.decay == 1e-4
    assert parse_recipe(Config, recipes, ["--recipe=paper"], None).epochs == 180


@pytest.mark.parametrize("arguments", [["--recipe", "papr"], ["--recipe"], ["--rec", "paper"]])
def test_other_recipes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_recipe(Config, {"paper": PAPER}, arguments, None)
    assert caught.value.code == 2
    assert "--rec" in capsys.readouterr().err


def test_sizes_go_to_the_model() -> None:
    assert Config().model_kwargs() == {}
    assert Config(group_size=8, coarse_size=16).model_kwargs() == {"group_size": 8, "coarse_size": 16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet56", "group_size": 8}, "belong to MGIC models"),
        ({"coarse_size": 0}, "--coarse-size is 0; give 1 or more"),
        ({"val_fraction": 1.0}, "--val-fraction is 1.0; give 0 or more, under 1"),
        ({"accumulate": 0}, "--accumulate is 0; give 1 or more"),
        (
            {"epochs": 5, "warmup": 5.0},
            "--warmup is 5, but the run has --epochs 5 .* give less, or",
        ),
        ({"epochs": 5, "warmup": float("inf")}, "--warmup is inf, but"),
        ({"warmup": -1.0}, "--warmup is -1.0; give 0"),
        ({"warmup": float("nan")}, "--warmup is nan; give 0"),
        ({"eval": Path("x"), "resume": True}, "nothing to --resume"),
        ({"model": "resnet5"}, "try resnet56, mgic_resnet56"),
        ({"model": "dgcnn"}, "none of this task's; try .*resnet56"),
    ],
)
def test_bad_values_are_named_with_the_remedy(change: dict[str, Any], message: str) -> None:
    Config().validate()
    with pytest.raises(UsageError, match=message):
        replace(Config(), **change).validate()


@pytest.mark.parametrize("change", [{"epochs": 1}, {"epochs": 2, "warmup": 1.5}, {"warmup": 0.0}])
def test_short_runs_need_no_thought_about_warm_up(change: dict[str, Any]) -> None:
    assert replace(Config(), **change).problems() == []
