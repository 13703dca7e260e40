import numpy as np
import pytest
import trimesh

from mgic_geo.datasets import CorruptMeshError, parse_mesh, sample_mesh, unit_sphere
from mgic_geo.datasets.meshes import mesh_rng

SQUARE = b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"


@pytest.mark.parametrize(
    "data",
    [
        SQUARE,
        SQUARE.replace(b"OFF\n", b"OFF"),
        SQUARE.replace(b"OFF\n", b"OFF "),
        SQUARE.replace(b"OFF\n", b"# made by hand\nOFF\n# counts\n"),
        SQUARE.replace(b"\n", b"\r\n"),
        SQUARE.replace(b"4 2 0", b"4 1 0").replace(b"3 0 1 2\n3 0 2 3", b"4 0 1 2 3"),
    ],
    ids=["plain", "joined", "spaced", "comments", "windows", "quad"],
)
def test_headers_and_faces(data):
    mesh = parse_mesh(data, "square.off")
    assert len(mesh.vertices) == 4
    assert mesh.area == pytest.approx(1)


def test_other_formats():
    box = trimesh.creation.box()
    for suffix in ("obj", "ply", "stl"):
        data = box.export(file_type=suffix)
        data = data.encode() if isinstance(data, str) else data
        assert parse_mesh(data, f"box.{suffix.upper()}").area == pytest.approx(6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^is empty$"),
        (b"\x00\xff\x13 nonsense", "does not begin with OFF"),
        (b"# exported\n" + SQUARE.removeprefix(b"OFF\n"), "does not begin with OFF"),
        (b"# exported\n COFF\n3 1", "cannot be parsed"),
        (b"OFF\nfour two\n", "cannot be parsed"),
        (SQUARE[:25], "cannot be parsed"),
        (SQUARE[: SQUARE.index(b"3 0 2 3")], "holds 1 of the 2 faces its header promises"),
        # newer releases of trimesh notice it, older ones leave it to us
        (SQUARE.replace(b"3 0 2 3", b"3 0 2 9"), "cannot be parsed|vertices that it lacks"),
        (SQUARE.replace(b"1 1 0", b"1 nan 0"), "not finite"),
        (SQUARE.replace(b"1 1 0", b"2 0 0").replace(b"0 1 0", b"3 0 0"), "no surface"),
        (b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "cannot be parsed|no surface"),
    ],
)
def test_corrupt_meshes_say_why(data, message):
    with pytest.raises(CorruptMeshError, match=message):
        parse_mesh(data, "square.off")


def test_every_truncation_is_noticed():
    """No prefix passes for a mesh, until all but the last digits of the last face are there."""
    for length in range(len(SQUARE) - 2):
        with pytest.raises(CorruptMeshError):
            parse_mesh(SQUARE[:length], "square.off")


def test_sampling_is_uniform_by_area():
    """The small square is cut into 512 triangles, the nine times larger one into 2: area alone must count."""
    faces = [[0, 1, 2], [0, 2, 3]]
    small = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], faces, process=False)
    large = trimesh.Trimesh([[5, 0, 0], [8, 0, 0], [8, 0, 3], [5, 0, 3]], faces, process=False)
    for _ in range(4):
        small = small.subdivide()
    points, normals = sample_mesh(trimesh.util.concatenate([small, large]), 20000, np.random.default_rng(0))
    on_large = np.abs(normals[:, 1]) > 0.5
    assert on_large.mean() == pytest.approx(0.9, abs=0.01)
    assert points.dtype == normals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-5)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-6)
    # Within a square the points are uniform: their spread along an edge is edge / sqrt(12).
    spread = points[on_large].std(0)
    assert spread[0] == pytest.approx(spread[2], rel=0.02)


def test_samples_depend_on_seed_and_name_only():
    def draw(seed, key):
        return sample_mesh(parse_mesh(SQUARE, "a.off"), 8, mesh_rng(seed, key))[0]

    np.testing.assert_array_equal(draw(0, "a"), draw(0, "a"))
    assert not np.array_equal(draw(0, "a"), draw(0, "b"))
    assert not np.array_equal(draw(0, "a"), draw(1, "a"))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 2)), r"must be \(N, 3\)"),
        (np.zeros((0, 3)), r"must be \(N, 3\)"),
        (np.full((4, 3), np.nan), "finite"),
        (np.ones((4, 3)), "all 4 points of the cloud lie at one place"),
        (1e200 * np.eye(4, 3), "its size overflows; scale it down"),
    ],
)
def test_unit_sphere_checks(points, message):
    with pytest.raises(ValueError, match=message):
        unit_sphere(points)


def test_faces_of_vertices_that_are_not_there():
    """Binary .ply, whose reader does not look at the indices."""
    mesh = trimesh.creation.box()
    data = bytearray(mesh.export(file_type="ply"))
    data[-4:] = (99).to_bytes(4, "little")
    with pytest.raises(CorruptMeshError, match="faces of vertices that it lacks: it holds 8"):
        parse_mesh(bytes(data), "a.ply")
