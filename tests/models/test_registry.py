import pytest
import torch

from mgic_geo import create_model, list_models


@pytest.mark.parametrize("name", list_models())
def test_every_name_builds(name):
    assert create_model(name, num_classes=3, widths=(8, 8), k=4)(torch.randn(2, 12, 3)).shape == (2, 3)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(ValueError, match="'mgic_dgcn'; did you mean mgic_dgcnn"):
        create_model("mgic_dgcn")
    with pytest.raises(ValueError, match="there are dgcnn, mgic_dgcnn"):
        create_model("xyz")
