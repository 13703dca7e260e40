"""What messages say about many files that cannot be used."""

import pickle

import pytest

from mgic_geo.datasets import CorruptImageError
from mgic_geo.datasets.problems import corrupt, odd_size, raise_or_warn


def test_of_many_problems_ten_are_named() -> None:
    problems = [f"{number:03d}.png: is empty" for number in range(586)]
    error = corrupt(problems, "pets", "Mend them.")
    lines = str(error).splitlines()
    assert lines[0] == "586 file(s) of pets cannot be used:"
    assert lines[1:11] == [f"  {problem}" for problem in problems[:10]]
    assert lines[11:] == ["  … and 576 more", "Mend them."]
    assert error.problems == pickle.loads(pickle.dumps(error)).problems == tuple(problems)
    assert "more" not in str(corrupt(problems[:10], "pets", ""))


@pytest.mark.parametrize(("odd", "skipping"), [(0, True), (1, True), (60, True), (61, False), (586, False)])
def test_skipping_is_no_remedy_for_a_data_set_of_many_sizes(odd: int, skipping: bool) -> None:
    problems = ["a.png: is empty"] + [f"{number}.png: {odd_size((3, 8, 9), (8, 8))}" for number in range(odd)]
    with pytest.raises(CorruptImageError) as caught:
        raise_or_warn(problems, 600, "pets", skip_corrupt=False, one_size="crop them")
    assert ("Sizes differ: crop them." in str(caught.value)) == (odd > 0)
    assert ("skip_corrupt=True" in str(caught.value)) == skipping
