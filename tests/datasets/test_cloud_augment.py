import math

import pytest
import torch

from mgic_geo.datasets import Augment

OFF = {"scale": None, "shift": 0.0, "jitter": 0.0, "rotate": False, "dropout": 0.0}


@pytest.fixture
def points():
    return torch.rand(64, 50, 3, generator=torch.Generator().manual_seed(1)) - 0.5


def changed(points, seed=0, **parts):
    return Augment(**(OFF | parts))(points, torch.Generator().manual_seed(seed))


def test_all_off_changes_nothing(points):
    assert torch.equal(changed(points), points)


def test_same_seed_same_change_and_input_kept(points):
    before = points.clone()
    parts = {"scale": (0.5, 2), "shift": 0.2, "jitter": 0.01, "rotate": True, "dropout": 0.5}
    assert torch.equal(changed(points, **parts), changed(points, **parts))
    assert not torch.equal(changed(points, **parts), changed(points, seed=1, **parts))
    assert torch.equal(points, before)


def test_scale_is_one_factor_a_cloud_and_axis(points):
    factors = changed(points, scale=(2 / 3, 3 / 2)) / points
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-3)
    assert factors.min() > 2 / 3 - 1e-3
    assert factors.max() < 3 / 2 + 1e-3
    assert factors[:, 0].std(0).min() > 0.15  # uniform over 0.83 has 0.24
    assert (factors[:, 0, 0] - factors[:, 0, 1]).abs().max() > 0.3


def test_shift_is_one_vector_a_cloud(points):
    moves = changed(points, shift=0.2) - points
    assert torch.allclose(moves, moves[:, :1].expand_as(moves), atol=1e-6)
    assert moves.abs().max() <= 0.2
    assert moves[:, 0].std(0).min() > 0.08  # uniform over 0.4 has 0.12


def test_jitter_is_clipped_at_two_deviations(points):
    noise = changed(points, jitter=0.01) - points
    assert noise.abs().max() <= 0.02 + 1e-6
    assert 0.008 < noise.std() < 0.01


def test_rotation_is_about_the_up_axis(points):
    turned = changed(points, rotate=True)
    assert torch.allclose(turned[..., 2], points[..., 2])
    assert torch.allclose(turned.norm(dim=-1), points.norm(dim=-1), atol=1e-6)
    angles = torch.atan2(turned[:, 0, 1], turned[:, 0, 0]) - torch.atan2(points[:, 0, 1], points[:, 0, 0])
    assert angles.remainder(2 * math.pi).std() > 1.2  # uniform over the circle has 1.8
    # A rotation, not a reflection: it keeps the sign of triple products.
    volume = torch.linalg.det(points[:, :3]), torch.linalg.det(turned[:, :3])
    assert torch.allclose(*volume, atol=1e-6)


def test_dropout_puts_the_first_point_in_place_of_the_lost(points):
    left = changed(points, dropout=0.8)
    lost = (left != points).any(-1)
    assert torch.equal(left[lost], points[:, :1].expand_as(points)[lost])
    shares = lost.float().mean(1)
    assert 0.3 < shares.mean() < 0.5  # uniform over 0 … 0.8
    assert shares.std() > 0.15
    assert left.shape == points.shape


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"scale": (1.5, 0.5)}, "scale must be"),
        ({"scale": (0.0, 0.5)}, "scale must be"),
        ({"shift": -0.1}, "shift must be 0"),
        ({"jitter": -0.1}, "jitter must be 0"),
        ({"dropout": 1.0}, "dropout must be 0"),
    ],
)
def test_values_are_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        Augment(**parts)
