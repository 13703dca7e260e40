from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from mgic_geo.datasets import PointClouds
from mgic_geo.training import CloudData, UsageError


def on_rank(data: CloudData, rank: int, world_size: int) -> CloudData:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)  # type: ignore
    return data


def test_ranks_share_the_clouds(make_clouds: Callable[..., PointClouds]) -> None:
    data = CloudData(make_clouds(10), make_clouds(5), batch_size=2, points=8)
    shards = [on_rank(data, rank, 2) for rank in (0, 1)]
    batches = [list(on_rank(data, rank, 2).train_dataloader()) for rank in (0, 1)]
    assert [len(b) for b in batches] == [2, 2]
    assert batches[0][0][0].shape == (2, 8, 3)
    seen = [labels for rank in (0, 1) for _, labels in on_rank(shards[rank], rank, 2).val_dataloader()]
    assert torch.cat(seen).sort()[0].tolist() == sorted(make_clouds(5).labels.tolist())


def test_batches_that_cannot_be_cut_are_the_users_to_mend(make_clouds: Callable[..., PointClouds]) -> None:
    with pytest.raises(UsageError, match="smaller batch_size"):
        on_rank(CloudData(make_clouds(4), None, batch_size=8, points=8), 0, 1).train_dataloader()
