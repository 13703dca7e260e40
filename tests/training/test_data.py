from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mgic_geo.datasets import IMAGENET, CloudLoader, ImageLoader, Images, PointClouds
from mgic_geo.training.data import LoaderData
from mgic_geo.training.errors import UsageError


def on_rank(data: LoaderData, rank: int, world_size: int) -> LoaderData:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)  # type: ignore
    return data


def test_ranks_share_the_clouds(make_clouds: Callable[..., PointClouds]) -> None:
    data = LoaderData(
        partial(CloudLoader, make_clouds(10), 2, points=8, train=True),
        partial(CloudLoader, make_clouds(5), 2, points=8),
    )
    shards = [on_rank(data, rank, 2) for rank in (0, 1)]
    batches = [list(on_rank(data, rank, 2).train_dataloader()) for rank in (0, 1)]
    assert [len(b) for b in batches] == [2, 2]
    assert batches[0][0][0].shape == (2, 8, 3)
    seen = [labels for rank in (0, 1) for _, labels in on_rank(shards[rank], rank, 2).val_dataloader()]
    assert torch.cat(seen).sort()[0].tolist() == sorted(make_clouds(5).labels.tolist())


def test_batches_that_cannot_be_cut_are_the_users_to_mend(make_clouds: Callable[..., PointClouds]) -> None:
    with pytest.raises(UsageError, match="smaller batch_size"):
        on_rank(
            LoaderData(partial(CloudLoader, make_clouds(4), 8, points=8, train=True)), 0, 1
        ).train_dataloader()


@pytest.mark.parametrize("rank", [0, 2])
def test_every_rank_refuses_a_split_of_fewer_samples_than_ranks(
    make_clouds: Callable[..., PointClouds], rank: int
) -> None:
    two = Images(torch.zeros(2, 3, 8, 8).byte(), torch.arange(2), ("a", "b"), ("cat", "dog"))
    make = partial(ImageLoader, two, 2, normalization=IMAGENET)
    few = r"^2 sample\(s\) cannot be shared by 3 processes; raise --val-fraction"
    with pytest.raises(UsageError, match=few):
        on_rank(LoaderData(make, make), rank, 3).val_dataloader()
    clouds = partial(CloudLoader, make_clouds(2), 2, points=8)
    with pytest.raises(UsageError, match=few):
        on_rank(LoaderData(clouds, clouds), rank, 3).val_dataloader()
    assert len(on_rank(LoaderData(make, make), 1, 2).val_dataloader()) == 1


def test_images_that_do_not_fill_a_batch_are_the_users_to_mend() -> None:
    two = Images(torch.zeros(2, 3, 8, 8).byte(), torch.arange(2), ("a", "b"), ("cat", "dog"))
    make = partial(ImageLoader, two, 4, normalization=IMAGENET, train=True)
    with pytest.raises(UsageError, match="smaller batch_size"):
        on_rank(LoaderData(make), 0, 1).train_dataloader()
