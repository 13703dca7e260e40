import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mgic_geo import ChannelHierarchy, GroupedLinear, MGICBlock, Prolongation, Restriction


@pytest.mark.parametrize(("group_size", "parameters"), [(32, 3328), (16, 1792), (8, 896), (4, 448)])
def test_parameters_of_the_papers_table_1(group_size, parameters):
    plan = ChannelHierarchy(64, group_size, 8)
    block = MGICBlock(plan, lambda width, groups: nn.Identity(), norm=lambda width: nn.Identity())
    assert sum(p.numel() for p in block.parameters()) == parameters


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from(["random", "average"]))
def test_starts_as_an_average_within_groups(groups, size, init):
    for transfer in (
        Restriction(2 * size * groups, size * groups, groups, init=init),
        Prolongation(size * groups, 2 * size * groups, groups, init=init),
    ):
        assert bool((transfer.map.weight > 0).all())
        torch.testing.assert_close(transfer.map.weight.sum(1), torch.ones(transfer.map.out_channels))
        constant = torch.ones(3, transfer.map.in_channels)
        torch.testing.assert_close(transfer(constant), torch.ones(3, transfer.map.out_channels))


def test_random_rows_differ_and_average_rows_do_not():
    random, average = Restriction(8, 4, 1), Restriction(8, 4, 1, init="average")
    assert len(random.map.weight.unique(dim=0)) == 4
    assert len(average.map.weight.unique(dim=0)) == 1


def test_the_initialisation_survives_a_models_own_loop():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 1), Restriction(8, 4, 2, lambda i, o, g: GroupedLinear(i, o, g, channel_dim=1))
    )

    def overwrite(module):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)

    before = model[1].map.weight.clone()
    model.apply(overwrite)
    assert torch.equal(model[1].map.weight, before)


def test_reset_draws_anew():
    torch.manual_seed(0)
    transfer = Restriction(8, 4, 2)
    before = transfer.map.weight.clone()
    transfer.reset_parameters()
    assert not torch.equal(transfer.map.weight, before)
    torch.testing.assert_close(transfer.map.weight.sum(1), torch.ones(4))


def test_unknown_init():
    with pytest.raises(ValueError, match="'random', 'average' or 'signed', got 'mean'"):
        Restriction(8, 4, 2, init="mean")


def test_signed_rows_keep_the_scale_of_features_without_a_mean():
    torch.manual_seed(0)
    x = torch.randn(256, 256)
    signed, averaging = (Restriction(256, 128, 8, init=init) for init in ("signed", "random"))
    assert signed.map.weight.min() < 0
    assert 0.9 < signed(x).std() < 1.1
    assert averaging(x).std() < 0.3
