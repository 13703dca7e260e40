import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo.datasets.journal import Journal

PAYLOAD = [("values", "<f2", (3,))]


def fill(journal, keys):
    for key in keys:
        journal.append(key, values=[key, key + 1, key + 2])


def test_append_and_reopen(tmp_path):
    with Journal(tmp_path / "j", PAYLOAD) as journal:
        assert journal.keys == []
        assert len(journal.payloads()) == 0
        fill(journal, [4, 2])
        np.testing.assert_array_equal(journal.payloads()["values"], [[4, 5, 6], [2, 3, 4]])
    with Journal(tmp_path / "j", PAYLOAD) as journal:
        fill(journal, [9])
        assert journal.keys == [4, 2, 9]
        np.testing.assert_array_equal(journal.payloads()["values"][2], [9, 10, 11])


@settings(deadline=None)
@given(data=st.data())
def test_cut_anywhere_it_goes_on(tmp_path_factory, data):
    """Whatever prefix of the file a kill leaves, its whole records are kept and the rest is written anew."""
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path, PAYLOAD) as journal:
        fill(journal, range(5))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with Journal(path, PAYLOAD) as journal:
        assert journal.keys == list(range(cut * 5 // len(whole)))
        fill(journal, range(len(journal.keys), 5))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", [0, 9, 13])
def test_damaged_record_and_what_follows_is_dropped(tmp_path, place):
    path = tmp_path / "j"
    with Journal(path, PAYLOAD) as journal:
        fill(journal, range(4))
    whole = bytearray(path.read_bytes())
    whole[2 * len(whole) // 4 + place] ^= 1
    path.write_bytes(whole)
    with Journal(path, PAYLOAD) as journal:
        assert journal.keys == [0, 1]
