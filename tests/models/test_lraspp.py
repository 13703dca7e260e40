import math

import pytest
import torch
from torch import nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from mgic_geo import complexity, create_model
from mgic_geo.models import LRASPP, FeatureMaps
from mgic_geo.models.mobilenetv3 import MobileNetV3, Row
from mgic_geo.models.resnet import resnet56

ROWS = (
    Row(3, 16, 8, False, False, 2), Row(3, 24, 16, True, True, 2), Row(3, 24, 32, True, True, 2),
    Row(5, 48, 32, True, True, 2),
)  # fmt: skip


def trunk(**kwargs):
    torch.manual_seed(0)
    return FeatureMaps(MobileNetV3(ROWS, 32, num_classes=0, output_stride=16, **kwargs))


@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_logits_of_every_pixel(size):
    model = LRASPP(trunk(), num_classes=4, filters=16)
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 4, *size)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", ["lraspp_mobilenetv3_small", "lraspp_mgic_mobilenetv3_small"])
def test_a_new_one_is_undecided(name):
    """Its loss is about that of equal probabilities, as after ``reset_classifier``."""
    torch.manual_seed(0)
    model, images = create_model(name, num_classes=11).train(), torch.randn(4, 3, 64, 64)
    labels = torch.randint(11, (4, 64, 64))
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), labels)
        assert 0.95 * math.log(11) < loss.item() < 1.15 * math.log(11)
        model.reset_classifier(11)


def test_channels_are_the_trunks():
    model = LRASPP(trunk(), filters=16)
    assert model.low_classifier.in_channels == 16  # the map of stride 8
    assert model.cbr[0].in_channels == 6 * 32
    wide = LRASPP(trunk(width=2.0), filters=16)
    assert wide.low_classifier.in_channels == 32
    assert wide.cbr[0].in_channels == 6 * 64


def test_the_head_is_torchvisions_up_to_the_last_map():
    model = LRASPP(trunk(), num_classes=4, filters=16).eval()
    nn.init.eye_(model.last.weight[:, :, 0, 0])
    nn.init.zeros_(model.last.bias)
    head = LRASPPHead(16, 192, 4, 16).eval()
    head.load_state_dict(
        {n: v for n, v in model.state_dict().items() if n.split(".")[0] not in ("trunk", "last")}
    )
    x = torch.randn(1, 3, 64, 96)
    maps = model.trunk(x)
    expected = head({"low": maps[2], "high": maps[-1]})
    expected = nn.functional.interpolate(expected, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(x), expected)


def test_named_models_halve_the_last_stage():
    model = create_model("lraspp_mgic_mobilenetv3_small", num_classes=11)
    assert model.trunk.channels == (16, 16, 24, 48, 288)
    assert model.trunk.strides == (2, 4, 8, 16, 16)
    assert model.cbr[0].out_channels == 128
    assert model.eval()(torch.randn(1, 3, 36, 48)).shape == (1, 11, 36, 48)
    coarser = create_model("lraspp_mobilenetv3_large", output_stride=32)
    assert coarser.trunk.strides[-1] == 32


def test_classifiers_are_replaced():
    model = LRASPP(trunk(), num_classes=4, filters=16).eval()
    model.reset_classifier(6)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 6, 32, 32)
    other = LRASPP(trunk(), num_classes=6, filters=16).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(x), model(x))


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        LRASPP(trunk(), num_classes=0)
    with pytest.raises(ValueError, match=r"stride 8 ahead of its last, got strides \(1, 2, 4\)"):
        LRASPP(FeatureMaps(resnet56(depths=(1, 1, 1))))


def test_the_slim_network_has_less_of_everything():
    slim, plain = (
        create_model(name, num_classes=11)
        for name in ("lraspp_mgic_mobilenetv3_small_slim", "lraspp_mobilenetv3_small")
    )
    image = torch.randn(1, 3, 96, 96)
    ours, theirs = (complexity(model, image) for model in (slim, plain))
    assert ours.parameters < theirs.parameters
    assert ours.multiply_adds < theirs.multiply_adds
