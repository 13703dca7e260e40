import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgic_geo.datasets import Augment, CloudLoader, PointClouds


def clouds(count=10, pool=16):
    """Point p of cloud s is (s, p, 0): a batch tells which points it took."""
    s, p = torch.meshgrid(torch.arange(count), torch.arange(pool), indexing="ij")
    points = torch.stack([s, p, 0 * s], -1).float()
    return PointClouds(points, torch.arange(count) % 3, tuple(map(str, range(count))), ("a", "b", "c"))


def epoch(loader, number=0):
    loader.set_epoch(number)
    batches = list(loader)
    assert len(batches) == len(loader)
    return torch.cat([points for points, _ in batches]), torch.cat([labels for _, labels in batches])


def test_evaluation_is_in_order_and_complete():
    data = clouds()
    loader = CloudLoader(data, 4, points=5)
    assert [len(labels) for _, labels in loader] == [4, 4, 2]
    points, labels = epoch(loader)
    assert torch.equal(points, data.points[:, :5])
    assert torch.equal(labels, data.labels)
    assert torch.equal(epoch(loader, 7)[0], points)


@given(pool=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_training_draws_without_replacement(pool, share, seed):
    wanted = max(1, round(share * pool))
    points, _ = epoch(CloudLoader(clouds(6, pool), 3, points=wanted, train=True, seed=seed))
    assert points.shape == (6, wanted, 3)
    for cloud in points:
        assert len(cloud[:, 0].unique()) == 1
        assert len(cloud[:, 1].unique()) == wanted


def test_labels_follow_their_clouds():
    points, labels = epoch(CloudLoader(clouds(), 5, points=4, train=True))
    assert torch.equal(labels, points[:, 0, 0].long() % 3)
    assert points[:, 0, 0].tolist() != sorted(points[:, 0, 0].tolist())


def test_every_point_is_drawn_equally_often():
    loader = CloudLoader(clouds(50, 12), 50, points=5, train=True)
    counts = torch.zeros(12)
    for number in range(100):
        counts += epoch(loader, number)[0][..., 1].long().flatten().bincount(minlength=12)
    share = counts / 5000
    assert (share - 5 / 12).abs().max() < 0.035  # five deviations of sqrt(5/12 * 7/12 / 5000)


def test_an_epoch_depends_on_seed_epoch_and_rank_only():
    def points(number, **parts):
        return epoch(CloudLoader(clouds(), 2, points=4, train=True, augment=Augment(), **parts), number)[0]

    assert torch.equal(points(3), points(3))
    assert not torch.equal(points(3), points(4))
    assert not torch.equal(points(3), points(3, seed=1))
    resumed = CloudLoader(clouds(), 2, points=4, train=True, augment=Augment())
    for number in range(3):
        epoch(resumed, number)
    assert torch.equal(epoch(resumed, 3)[0], points(3))


def test_incomplete_training_batch_is_dropped():
    loader = CloudLoader(clouds(10), 4, points=4, train=True)
    assert [len(labels) for _, labels in loader] == [4, 4]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_the_work(world):
    data = clouds(14)
    seen = []
    for rank in range(world):
        loader = CloudLoader(data, 2, points=4, train=True, rank=rank, world_size=world)
        assert len(loader) == 14 // world // 2
        seen += epoch(loader, 1)[0][:, 0, 0].tolist()
    assert len(set(seen)) == len(seen) == 14 // world // 2 * 2 * world
    tested = []
    for rank in range(world):
        tested += epoch(CloudLoader(data, 4, points=4, rank=rank, world_size=world))[0][:, 0, 0].tolist()
    assert sorted(tested) == list(range(14))


def test_all_points_of_the_pool():
    points, _ = epoch(CloudLoader(clouds(4, 8), 4, points=8, train=True))
    assert torch.equal(points[..., 1], torch.arange(8.0).expand(4, 8))


def test_augmentation_touches_the_batch_only():
    data = clouds()
    before = data.points.clone()
    augmented, _ = epoch(
        CloudLoader(data, 5, points=4, train=True, augment=Augment(rotate=True, dropout=0.5))
    )
    plain, _ = epoch(CloudLoader(data, 5, points=4, train=True))
    assert augmented.shape == plain.shape
    assert not torch.equal(augmented, plain)
    assert torch.equal(data.points, before)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"points": 17}, "points must lie in 1 … 16, the points stored for each cloud; got 17"),
        ({"points": 0}, "points must lie in 1 … 16"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"rank": 1}, "rank must lie in 0 … world_size - 1 = 0; got 1"),
        ({"augment": Augment()}, "pass train=True"),
        ({"batch_size": 11, "train": True}, "10 clouds do not fill one training batch of 11"),
    ],
)
def test_values_are_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        CloudLoader(clouds(), **({"batch_size": 2, "points": 4} | parts))
