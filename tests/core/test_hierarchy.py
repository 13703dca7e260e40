import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgic_geo import ChannelHierarchy

sizes = st.integers(1, 300)


def test_the_papers_example():
    plan = ChannelHierarchy(64, 8, 8)
    assert plan.widths == (64, 32, 16, 8)
    assert plan.groups == (8, 4, 2, 1)
    assert plan.coarsenings == 3


def test_the_designs_example():
    plan = ChannelHierarchy(64, 16, 16)
    assert (plan.widths, plan.groups) == ((64, 32, 16), (4, 2, 1))
    assert repr(plan) == "ChannelHierarchy(64 in 4 groups -> 32 in 2 groups -> 16 dense)"


@given(sizes, sizes, sizes)
def test_any_sizes_make_a_plan(channels, group_size, coarse_size):
    plan = ChannelHierarchy(channels, group_size, coarse_size)
    assert plan.widths[0] == channels
    assert plan.widths[-1] <= coarse_size
    assert all(width > coarse_size for width in plan.widths[:-1])
    assert plan.groups[-1] == 1
    for fine, coarse, groups in zip(plan.widths[:-1], plan.widths[1:], plan.groups[:-1], strict=True):
        assert coarse < fine <= 2 * coarse
        assert fine % groups == coarse % groups == 0
        size = fine // groups
        divisors = [d for d in range(2, fine + 1) if fine % d == 0]
        # As large as allowed; larger than allowed only where nothing else divides.
        assert size >= 2
        if size > group_size:
            assert size == min(divisors)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_powers_of_two_follow_the_paper(c, g, s):
    channels, group_size, coarse_size = 2**c, 2**g, 2**s
    plan = ChannelHierarchy(channels, group_size, coarse_size)
    assert plan.widths == tuple(2**e for e in range(c, min(c, s) - 1, -1))
    if group_size > 1:
        assert plan.groups[:-1] == tuple(max(1, width // group_size) for width in plan.widths[:-1])


@given(sizes, sizes, st.integers(0, 3))
def test_min_levels_forces_coarsening(channels, group_size, min_levels):
    if channels >= 2**min_levels:
        assert ChannelHierarchy(channels, group_size, 300, min_levels).coarsenings == min_levels


def test_odd_widths_keep_more_than_half():
    assert ChannelHierarchy(15, 8, 9).widths == (15, 9)
    prime = ChannelHierarchy(97, 16, 64)
    assert prime.groups == (1, 1)  # it is its own group
    assert repr(prime) == "ChannelHierarchy(97 dense -> 49 dense)"


@pytest.mark.parametrize("name", ["channels", "group_size", "coarse_size"])
def test_impossible_values_are_named(name):
    arguments = {"channels": 8, "group_size": 4, "coarse_size": 4}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ChannelHierarchy(**{**arguments, name: 0})
    with pytest.raises(TypeError, match=f"{name} must be an integer, got 2.5"):
        ChannelHierarchy(**{**arguments, name: 2.5})
    with pytest.raises(TypeError, match=f"{name} must be an integer, got True"):
        ChannelHierarchy(**{**arguments, name: True})


def test_min_levels_beyond_one_channel():
    with pytest.raises(ValueError, match="ask for min_levels <= 1"):
        ChannelHierarchy(2, 4, 4, min_levels=2)
    with pytest.raises(ValueError, match="min_levels must be at least 0, got -1"):
        ChannelHierarchy(2, 4, 4, min_levels=-1)
