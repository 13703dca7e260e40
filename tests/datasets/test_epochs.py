"""Random numbers of different purposes are independent of one another."""

from itertools import combinations

import torch

from mgic_geo.datasets import Augment, CloudLoader, PointClouds
from mgic_geo.datasets.epochs import Purpose, generator


def test_no_two_streams_are_the_same():
    entropy = [(), (0,), (1,), (1, 0), (1, 0, 0), (0, 1), (0, 0, 1)]  # zeros at the end make no other stream
    seeds = {purpose: {generator(purpose, *e).initial_seed() for e in entropy} for purpose in Purpose}
    assert all(not seeds[a] & seeds[b] for a, b in combinations(Purpose, 2))


def test_where_a_cloud_begins_says_nothing_of_its_place_in_the_order():
    """Each cloud's points are numbered, and so is the cloud: the first point of a draw is its offset."""
    clouds, pool = 256, 8
    points = torch.zeros(clouds, pool, 3)
    points[:, :, 0], points[:, :, 1] = torch.arange(clouds)[:, None], torch.arange(pool)
    labels = torch.zeros(clouds).long()
    data = PointClouds(points, labels, tuple(map(str, range(clouds))), ("any",))
    loader = CloudLoader(data, clouds, points=2, train=True)
    agree = []
    for epoch in range(40):
        loader.set_epoch(epoch)
        ((batch, _),) = loader
        cloud, offset = batch[:, 0, :2].long().unbind(1)
        agree.append(((cloud - offset) % 2 == 0).float().mean())
    assert abs(float(torch.stack(agree).mean()) - 0.5) < 0.03  # six standard errors


def test_ranks_draw_different_changes():
    """Of clouds that are all the same, so that only the changes can differ."""
    data = PointClouds(torch.ones(8, 4, 3), torch.zeros(8).long(), tuple("abcdefgh"), ("any",))
    batches = []
    for rank in range(2):
        loader = CloudLoader(data, 4, points=4, train=True, augment=Augment(), rank=rank, world_size=2)
        ((batch, _),) = loader
        batches.append(batch)
    assert not torch.equal(*batches)
