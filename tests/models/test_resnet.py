import pytest
import torch
import torchvision
from torch import nn

from mgic_geo import Bottleneck2d, MGICBasicBlock2d, create_model
from mgic_geo.models import ResNet
from mgic_geo.models.resnet import mgic_resnet50, mgic_resnet56, resnet50, resnet56


def small(block=None, **kwargs):
    torch.manual_seed(0)
    block = block or MGICBasicBlock2d.sized(group_size=4, coarse_size=4)
    return ResNet(block, (1, 2), (8, 16), **{"num_classes": 5, "stem": "cifar", **kwargs})


def test_resnet50_equals_torchvisions_with_its_weights():
    torch.manual_seed(0)
    ours, theirs = resnet50(num_classes=7), torchvision.models.resnet50(num_classes=7)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for training in (False, True):
        ours.train(training), theirs.train(training)
        torch.testing.assert_close(ours(x), theirs(x))
    ours.zero_grad()
    outputs = [model(x) for model in (ours, theirs)]
    for output in outputs:
        output.square().sum().backward()
    expected = dict(theirs.named_parameters())
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-3)


def test_resnet56_is_he_et_als():
    model = resnet56()
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == 55
    # Their 853,018 parameters, and two shortcuts: 1×1 convolutions with normalisation.
    assert sum(p.numel() for p in model.parameters()) == 853_018 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_mgic_forms_coarsen_at_least_once():
    model = mgic_resnet56(group_size=8, coarse_size=16)
    assert [stage[0].hierarchy.widths for stage in (model.layer1, model.layer2, model.layer3)] == [
        (16, 8), (32, 16), (64, 32, 16),
    ]  # fmt: skip
    model = mgic_resnet50(depths=(1, 1, 1, 1))
    assert model.layer4[0].hierarchy.widths == (512, 256, 128, 64)
    assert model.layer1[0].hierarchy.widths == (64, 32)
    assert model.layer1[0].hierarchy.groups == (2, 1)


@pytest.mark.parametrize("preactivation", [False, True])
def test_trains(preactivation):
    model = small(preactivation=preactivation)
    logits = model(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert ("last.0.weight" in model.state_dict()) == preactivation


def test_stages_and_features():
    model = small(Bottleneck2d, stem="imagenet").eval()
    x = torch.randn(2, 3, 32, 32)
    maps = model.forward_stages(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 8, 8), (64, 4, 4)]
    assert model.stage_channels == (32, 64)
    assert model.stage_strides == (4, 8)
    torch.testing.assert_close(model.forward_features(x), maps[-1].mean((2, 3)))
    assert small(stem="cifar").stage_strides == (1, 2)


def test_classifier_is_replaced_and_removed():
    model = small()
    x = torch.randn(2, 3, 8, 8)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == 7
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features) == (2, 16)


def test_a_state_dict_goes_round():
    model, other = small().eval(), small(in_channels=3).eval()
    nn.init.normal_(model.fc.weight)
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 1)])
def test_any_size_layout_and_precision(size):
    model = small(in_channels=1).eval()
    x = torch.randn(2, 1, *size)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x))
    assert model.double()(x.double()).dtype == torch.float64


def test_transfers_keep_their_start():
    model = create_model("mgic_resnet56")
    weight = model.layer3[0].cycle.restrictions[0].map.weight
    assert bool((weight > 0).all())
    torch.testing.assert_close(weight.sum(1), torch.ones(32))


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="stem must be 'imagenet' or 'cifar', got 'x'"):
        small(stem="x")
    with pytest.raises(ValueError, match=r"depths=\(1, 2, 3\), widths=\(8, 16\)"):
        ResNet(Bottleneck2d, (1, 2, 3), (8, 16))
    with pytest.raises(ValueError, match="num_classes must be 0 or more, got -1"):
        small(num_classes=-1)
