"""The figures of the paper's image tables: its rows, and the networks it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

# The parts of Figure 3: the paper draws the first; its other tables are drawn alike.
LIGHT = "ImageNet, light networks (Table 4)"
RESNETS = "ImageNet, from ResNet-50 (Table 3)"
SMALL_RESNETS = "CIFAR-10, from ResNet-56 (Tables 2, 7, 8)"
SEGMENTERS = "Cityscapes, LR-ASPP (Table 5)"
PANELS = (LIGHT, RESNETS, SMALL_RESNETS, SEGMENTERS)


class Paper(NamedTuple):
    """What the paper says: parameters and multiply-adds of one image, both in millions, and its score.

    The score is the accuracy, or on Cityscapes the mean intersection over union, in percent.
    """

    parameters: float
    multiply_adds: float
    score: float


@dataclass(frozen=True)
class Row:
    """One line of the paper's tables.

    Args:
        task: Data set.
        panel: The part of Figure 3 it belongs to.
        family: Networks of one design, which the figure connects.
        model: Name for ``create_model``.
        size: Height and width of the image.
        paper: The paper's figures.
        literal: Name and arguments of the model by the paper's words; None for a baseline.
        changed: In what ours departs from it.
    """

    task: str
    panel: str
    family: str
    model: str
    size: tuple[int, int]
    paper: Paper
    literal: tuple[str, dict[str, Any]] | None = None
    changed: str = ""


def _resnet56(group_size: int, coarse_size: int, paper: Paper, blocks: str, least: int = 1) -> Row:
    literal = ("mgic_resnet56", {"group_size": group_size, "coarse_size": coarse_size})
    name = f"mgic_resnet56_g{group_size}_c{coarse_size}"
    changed = f"blocks {blocks} for 9, 9, 9; `min_levels={least}`"
    return Row("CIFAR-10", SMALL_RESNETS, "MGIC-ResNet-56", name, (32, 32), paper, literal, changed)


def _resnet50(group_size: int, paper: Paper, blocks: str) -> Row:
    literal = ("mgic_resnet50", {"group_size": group_size})
    name = f"mgic_resnet50_g{group_size}_c64"
    changed = f"blocks {blocks} for 3, 4, 6, 3"
    return Row("ImageNet", RESNETS, "MGIC-ResNet-50", name, (224, 224), paper, literal, changed)


def _mobilenet(width: float, paper: Paper, changed: str) -> Row:
    literal = ("mgic_mobilenetv3_large", {"width": width})
    name = f"mgic_mobilenetv3_large_{round(100 * width):03}"
    return Row("ImageNet", LIGHT, "MGIC-MobileNetV3", name, (224, 224), paper, literal, changed)


def _lraspp(name: str, paper: Paper, changed: str = "") -> Row:
    literal = (name, {"tail_squeeze": False}) if "mgic" in name else None
    family = "MGIC-MobileNetV3" if literal else "MobileNetV3"
    return Row("Cityscapes", SEGMENTERS, family, name, (1024, 2048), paper, literal, changed)


ROWS = (
    Row("CIFAR-10", SMALL_RESNETS, "ResNet-56", "resnet56", (32, 32), Paper(0.85, 125, 93.0)),
    _resnet56(8, 16, Paper(0.41, 60, 94.2), "4, 8, 11", least=0),
    _resnet56(16, 16, Paper(0.47, 65, 94.3), "2, 8, 10"),
    _resnet56(16, 32, Paper(0.50, 76, 94.6), "4, 8, 9"),
    _resnet56(16, 64, Paper(0.53, 91, 94.7), "6, 8, 10"),
    Row("ImageNet", RESNETS, "ResNet-50", "resnet50", (224, 224), Paper(25.6, 4100, 75.3)),
    _resnet50(16, Paper(6.2, 1000, 74.3), "1, 3, 6, 3"),
    _resnet50(32, Paper(9.4, 1600, 75.8), "1, 3, 6, 3"),
    _resnet50(64, Paper(15.1, 2500, 77.9), "1, 2, 6, 3"),
    Row("ImageNet", LIGHT, "MobileNetV3", "mobilenetv3_large", (224, 224), Paper(5.4, 219, 75.2)),
    _mobilenet(
        0.6, Paper(2.3, 48, 66.3), "without rows 5, 8, 9; expansions × 0.6; 1168 hidden units for 768"
    ),
    _mobilenet(1.0, Paper(5.2, 145, 74.8), "without rows 5, 8, 9; 1760 hidden units for 1280"),
    _mobilenet(1.2, Paper(7.1, 233, 76.1), "2064 hidden units for 1536, to spend the parameters"),
    _lraspp("lraspp_mobilenetv3_large", Paper(1.51, 9740, 72.64)),
    _lraspp("lraspp_mobilenetv3_small", Paper(0.47, 2900, 68.38)),
    _lraspp(
        "lraspp_mgic_mobilenetv3_large",
        Paper(1.67, 9620, 72.60),
        "at least one coarsening, squeeze-excite in all of the last stage, to spend the budget",
    ),
    _lraspp("lraspp_mgic_mobilenetv3_small", Paper(0.48, 2730, 68.52)),
)


class Other(NamedTuple):
    """A network that the paper compares with: multiply-adds of one image in millions, score in percent."""

    panel: str
    family: str
    multiply_adds: float
    score: float


# As tables 2 to 4 print them; rows that lack one of the two figures are left out, as are those of ROWS.
OTHERS = (
    Other(SMALL_RESNETS, "CP-ResNet-56", 63, 92.0),
    Other(SMALL_RESNETS, "ℓ1-ResNet-56", 91, 92.5),
    Other(SMALL_RESNETS, "AMC-ResNet-56", 63, 91.9),
    Other(SMALL_RESNETS, "Ghost-ResNet-56", 63, 92.7),
    Other(RESNETS, "ThiNet", 2600, 72.1),
    Other(RESNETS, "Versatile", 3000, 74.5),
    Other(RESNETS, "SSS", 2800, 74.2),
    Other(RESNETS, "Ghost-ResNet-50", 2200, 75.0),
    Other(RESNETS, "Ghost-ResNet-50", 1200, 74.1),
    Other(RESNETS, "Taylor-FO-BN", 1300, 71.7),
    Other(RESNETS, "Slimmable 0.5×", 1100, 72.1),
    Other(RESNETS, "MetaPruning", 1000, 73.4),
    Other(LIGHT, "ShuffleNetV1", 40, 58.8),
    Other(LIGHT, "ShuffleNetV1", 138, 67.8),
    Other(LIGHT, "ShuffleNetV2", 41, 61.1),
    Other(LIGHT, "ShuffleNetV2", 146, 69.4),
    Other(LIGHT, "ShuffleNetV2", 299, 72.6),
    Other(LIGHT, "MobileNetV1", 150, 63.3),
    Other(LIGHT, "MobileNetV2", 59, 60.3),
    Other(LIGHT, "MobileNetV2", 141, 66.7),
    Other(LIGHT, "MobileNetV2", 300, 71.8),
    Other(LIGHT, "MobileNetV3", 44, 65.4),
    Other(LIGHT, "MobileNetV3", 155, 73.3),
    Other(LIGHT, "GhostNet", 42, 66.2),
    Other(LIGHT, "GhostNet", 141, 73.9),
    Other(LIGHT, "GhostNet", 226, 75.7),
    Other(LIGHT, "FE-Net", 301, 72.9),
    Other(LIGHT, "FBNet-B", 295, 74.1),
    Other(LIGHT, "ProxylessNAS", 320, 74.6),
    Other(LIGHT, "MnasNet-A1", 312, 75.2),
)
