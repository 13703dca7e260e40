import os

import numpy as np
import pytest

from mgic_geo.datasets.hdf5 import as_bytes, opened_hdf5, read_arrays, write_hdf5

resource = pytest.importorskip("resource")


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path, capfd):
    path, groups = tmp_path / "a.h5", {"train": {"images": np.ones(50_000), "labels": np.ones(9)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*a\.h5: File too large; is the disk full\?$"):
            write_hdf5(path, groups, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    write_hdf5(path, groups, {})
    with opened_hdf5(path) as file:
        assert read_arrays(file, ["train/images"])[0].sum() == 50_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_not_utf_8_is_shown():
    names = "Äpfel/ü.png", "plain.png"
    assert [name.decode() for name in as_bytes(names)] == list(names)
    with pytest.raises(ValueError, match=r"the file name b'\\xe4\.png' is not UTF-8; rename the file"):
        as_bytes((*names, os.fsdecode(b"\xe4.png")))
