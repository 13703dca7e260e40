from functools import partial

import pytest
import torch
from torch import nn

from mgic_geo import create_model, list_models
from mgic_geo.models import FeatureMaps

IMAGES = [name for name in list_models() if "dgcnn" not in name]


@pytest.mark.parametrize("name", ["dgcnn", "mgic_dgcnn"])
def test_every_point_network_builds(name):
    assert create_model(name, num_classes=3, widths=(8, 8), k=4)(torch.randn(2, 12, 3)).shape == (2, 3)


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_network_builds(name):
    model = create_model(name, num_classes=3).eval()
    x = torch.randn(1, 3, 32, 32)
    segments = "lraspp" in name
    with torch.no_grad():
        assert model(x).shape == (1, 3, *((32, 32) if segments else ()))
        maps = model.trunk if segments else FeatureMaps(model)
        assert [tuple(m.shape) for m in maps(x)] == [
            (1, c, 32 // s, 32 // s) for c, s in zip(maps.channels, maps.strides, strict=True)
        ]


@pytest.mark.parametrize("name", ["mgic_resnet56_g8_c16", "mobilenetv3_small"])
def test_features_only_drops_the_classifier(name):
    model = create_model(name, features_only=True)
    assert isinstance(model, FeatureMaps)
    assert not any(key.startswith(("network.fc", "network.classifier")) for key in model.state_dict())


def test_sizes_are_arguments():
    model = create_model("mgic_resnet56", group_size=4, coarse_size=8, depths=(1, 1, 1))
    assert model.layer3[0].hierarchy.widths == (64, 32, 16, 8)
    assert model.layer3[0].hierarchy.groups == (16, 8, 4, 1)


def test_names_without_feature_maps_say_so():
    for name in ("mgic_dgcnn", "lraspp_mobilenetv3_small"):
        with pytest.raises(ValueError, match=f"'{name}' has no feature maps"):
            create_model(name, features_only=True)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(ValueError, match="'mgic_dgcn'; did you mean mgic_dgcnn"):
        create_model("mgic_dgcn")
    with pytest.raises(ValueError, match="there are dgcnn, lraspp_mgic_mobilenetv3_large"):
        create_model("xyz")


@pytest.mark.parametrize("name", ["mgic_resnet56", "mobilenetv3_small", "lraspp_mobilenetv3_small"])
def test_a_new_classifier_has_the_type_of_the_network(name):
    model = create_model(name, num_classes=2).double().eval()
    model.reset_classifier(5)
    assert model(torch.randn(1, 3, 32, 32).double()).shape[:2] == (1, 5)


def test_normalisations_without_a_scale():
    model = create_model("mgic_resnet56", num_classes=2, norm_layer=partial(nn.BatchNorm2d, affine=False))
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2)
