"""The fast reader gives what trimesh gives, bit for bit, or nothing."""

import io

import numpy as np
import pytest
import trimesh

from mgic_geo.datasets.off import read_triangles
from mgic_geo.datasets.shapes import SHAPES, make_shape

SQUARE = b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1e0 -0.5\n3 0 1 2\n3 0 2 3\n"


def same(data: bytes) -> None:
    ours = read_triangles(data)
    theirs = trimesh.load_mesh(io.BytesIO(data), file_type="off", process=False)
    assert ours is not None
    for own, other in ((ours.vertices, theirs.vertices), (ours.faces, theirs.faces)):
        assert own.dtype == other.dtype
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    text = make_shape(name, np.random.default_rng(0)).export(file_type="off")
    assert isinstance(text, str)
    same(text.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"OFF\n", b"OFF"),
        (b"OFF\n", b" \n OFF\n\n"),
        (b"4 2 0", b"4 2"),
        (b"4 2 0", b"4\t 2 0 "),
        (b"\n", b"\r\n"),
        (b"3 0 2 3\n", b"3 0 2 3"),
        (b"1 1 0", b"  1.7976931348623157e300 1e-320\t+.1"),
    ],
)
def test_forms_of_triangles(old, new):
    same(SQUARE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"OFF", b"COFF"),
        (b"4 2 0", b"# counts\n4 2 0"),
        (b"4 2 0", b"4 3 0"),
        (b"4 2 0", b"9999999999999999 9999999999999999 0"),
        (b"1 1 0", b"1 1 # up\n0"),
        (b"1 1 0", b"1 1 x"),
        (b"1 1 0", b"1 1 0 255 0 0"),
        (b"3 0 1 2\n3 0 2 3", b"4 0 1 2 3"),
        (b"3 0 1 2", b"4 0 1 2"),
        (b"3 0 2 3", b"3 0 2 3 255 0 0"),
        (b"3 0 2 3", b"3 0 2 4"),
        (b"3 0 2 3", b"3 0 2 -1"),
        (b"3 0 2 3", b"3 0 2 2.5"),
        (b"3 0 2 3", b"3 0 2 nan"),
        (b"3 0 2 3", b"3 0 2"),
        (b"3 0 2 3", b"3 0 2 3\nend"),
    ],
)
def test_anything_else_is_left_to_trimesh(old, new):
    assert read_triangles(SQUARE) is not None
    assert read_triangles(SQUARE.replace(old, new)) is None


def test_no_number_at_all():
    assert read_triangles(b"OFF\n1 1 0\nnothing") is None
    assert read_triangles(b"") is None
