import pytest
import torch
import torchvision
from torch import nn

from mgic_geo import InvertedResidual2d, MGICInvertedResidual2d, complexity
from mgic_geo.models import MobileNetV3
from mgic_geo.models.mobilenetv3 import (
    LARGE,
    SMALL,
    Row,
    halved,
    mgic_mobilenetv3_large,
    mgic_mobilenetv3_small,
    mobilenetv3_large,
    mobilenetv3_small,
)  # fmt: skip

PAIRS = [
    (mobilenetv3_large, torchvision.models.mobilenet_v3_large),
    (mobilenetv3_small, torchvision.models.mobilenet_v3_small),
]
ROWS = (Row(3, 16, 16, False, False, 1), Row(3, 48, 24, True, True, 2), Row(5, 72, 24, True, True, 1))


def small(**kwargs):
    torch.manual_seed(0)
    block = kwargs.pop("block", None)
    return MobileNetV3(ROWS, 32, **{"num_classes": 5, "block": block, **kwargs})


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("width", [1.0, 0.6])
def test_costs_what_torchvisions_costs(ours, theirs, width):
    with torch.device("meta"):
        x = torch.empty(1, 3, 224, 224)
        model, twin = complexity(ours(width=width), x), complexity(theirs(width_mult=width), x)
    assert model.parameters == twin.parameters
    assert model.multiply_adds == twin.multiply_adds


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("segmenting", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_torchvisions_with_the_same_weights(ours, theirs, segmenting, training):
    torch.manual_seed(0)
    options = {"halved_tail": True, "tail_squeeze": True, "output_stride": 16} if segmenting else {}
    model = ours(num_classes=7, dropout=0.0, **options).double()
    twin = theirs(num_classes=7, dropout=0.0, reduced_tail=segmenting, dilated=segmenting).double()
    for i, block in enumerate(twin.features):
        # torchvision leaves out the residual of a block whose stride became a dilation; ours has it.
        if hasattr(block, "use_res_connect"):
            block.use_res_connect = model.features[i].residual
    x = torch.randn(4, 3, 48, 48, dtype=torch.double)
    model(x)  # the running statistics leave their start
    twin.load_state_dict(model.state_dict())
    outputs = [net.train(training)(x) for net in (model, twin)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.sum().backward()
    expected = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_mgic_blocks_stand_where_plain_ones_stood():
    plain, mgic = mobilenetv3_small(), mgic_mobilenetv3_small(min_levels=1)
    blocks = [layer for layer in plain.features if isinstance(layer, InvertedResidual2d)]
    cycles = [layer for layer in mgic.features if isinstance(layer, MGICInvertedResidual2d)]
    assert len(blocks) == len(cycles) == len(SMALL)
    assert [c.out_channels for c in cycles] == [row.out for row in SMALL]
    assert cycles[-1].hierarchy.widths == (96, 48)
    assert plain.stage_channels == mgic.stage_channels == (16, 16, 24, 48, 576)
    assert mgic(torch.randn(2, 3, 32, 32)).shape == (2, 1000)


def test_trains():
    model = small(block=MGICInvertedResidual2d)
    logits = model(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "strides"), [({}, (2, 4, 8, 16, 32)), ({"output_stride": 16}, (2, 4, 8, 16, 16))]
)
def test_stages(options, strides):
    model = mobilenetv3_large(num_classes=0, **options).eval()
    assert model.stage_strides == strides
    assert model.stage_channels == (16, 24, 40, 112, 960)
    maps = model.forward_stages(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 64 // s) for c, s in zip(model.stage_channels, strides, strict=True)
    ]


def test_the_tail_halves_and_loses_squeeze_excite_once():
    rows = halved(LARGE)
    assert rows[:12] == list(LARGE[:12])
    assert rows[12:] == [
        Row(5, 672, 80, False, True, 2), Row(5, 480, 80, True, True, 1), Row(5, 480, 80, True, True, 1),
    ]  # fmt: skip
    assert halved(LARGE, tail_squeeze=True)[12].squeeze


def test_rows_are_skipped_and_narrowed():
    model = mgic_mobilenetv3_large(skip=(5, 9), expansion=0.5, hidden=640, num_classes=10)
    blocks = [layer for layer in model.features if isinstance(layer, MGICInvertedResidual2d)]
    assert len(blocks) == len(LARGE) - 2
    assert blocks[-1].cycle.blocks[0].block[1][0].out_channels == 480
    assert model.classifier[0].out_features == 640
    for row in (0, 3, 15):
        with pytest.raises(ValueError, match=f"keep width and resolution, got {row} of 15 rows"):
            mgic_mobilenetv3_large(skip=(row,))


def test_classifier_is_replaced_and_removed():
    model = small().eval()
    x = torch.randn(2, 3, 16, 16)
    first = model.classifier[0]
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.classifier[0] is first
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    assert isinstance(model.classifier, nn.Identity)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


def test_a_state_dict_goes_round():
    model, other = (small(block=MGICInvertedResidual2d).eval() for _ in range(2))
    nn.init.normal_(model.classifier[3].weight)
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 17, 15)
    assert torch.equal(other(x), model(x))
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x))
    assert model.double()(x.double()).dtype == torch.float64


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="output_stride must be 16 or 32, got 8"):
        small(output_stride=8)
    with pytest.raises(ValueError, match="num_classes must be 0 or more, got -1"):
        small(num_classes=-1)
