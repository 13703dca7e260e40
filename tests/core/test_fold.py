import copy

import pytest
import torch
from torch import nn

from mgic_geo.core import GroupedLinear
from mgic_geo.core.fold import affine_of, fold, in_place


def statistics(norm):
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.2, 2)
    for values in norm.parameters():
        nn.init.normal_(values)
    return norm.eval()


def without_shift(norm):
    norm.register_parameter("bias", None)
    return norm


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(6, 8), nn.BatchNorm1d(8), (5, 6)),
        (nn.Conv2d(6, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8, eps=0.1), (2, 6, 5, 5)),
        (nn.Conv1d(6, 8, 2), nn.BatchNorm1d(8, affine=False), (2, 6, 5)),
        (nn.Linear(6, 8), without_shift(nn.BatchNorm1d(8)), (5, 6)),
        (GroupedLinear(6, 8, groups=2), nn.BatchNorm1d(8), (5, 6)),
        (GroupedLinear(6, 8, groups=2, bias=True, channel_dim=1), nn.BatchNorm2d(8), (2, 6, 3, 3)),
    ],
)
def test_folded_equals_one_behind_the_other(layer, norm, shape):
    torch.manual_seed(0)
    layer, norm, x = layer.double(), statistics(norm).double(), torch.randn(shape, dtype=torch.double)
    expected = norm(layer(x))
    assert fold(layer, norm)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-12)


class OwnNorm(nn.BatchNorm1d):
    pass


def test_what_cannot_be_folded_is_left():
    layer = nn.Linear(6, 8)
    before = copy.deepcopy(layer.state_dict())
    untracked = nn.BatchNorm1d(8, track_running_stats=False)
    for norm in (nn.LayerNorm(8), OwnNorm(8), untracked, nn.BatchNorm1d(9), nn.ReLU()):
        assert not fold(layer, norm)
    for norm in (nn.LayerNorm(8), OwnNorm(8)):
        assert affine_of(norm) is None
    norm = nn.BatchNorm1d(8)
    assert not fold(nn.Embedding(8, 8), norm)
    assert not fold(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), norm)
    assert not fold(nn.LazyLinear(8), norm)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_channels_last_and_number_types_stay():
    layer = nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last).bfloat16()
    assert fold(layer, nn.BatchNorm2d(8))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16


def test_memory_that_lies_transposed_does_not_stay():
    layer = nn.Linear(6, 8)
    layer.weight = nn.Parameter(torch.randn(6, 8).t())
    assert fold(layer, nn.BatchNorm1d(8))
    assert layer.weight.is_contiguous()


def test_in_place_copies():
    act = nn.LeakyReLU(0.2)
    other = in_place(act)
    assert (act.inplace, other.inplace, other.negative_slope) == (False, True, 0.2)
    assert isinstance(in_place(nn.Identity()), nn.Identity)
