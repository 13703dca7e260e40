"""The cache: the same bytes whatever happens on the way, and errors that name every corrupt mesh."""

import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mgic_geo.datasets import CorruptMeshError, cloud_cache, parse_mesh, read_clouds, sample_mesh
from mgic_geo.datasets.cloud_cache import build_cache, check_complete
from mgic_geo.datasets.meshes import mesh_rng
from mgic_geo.datasets.sources import find_meshes

# The child says when it is ready, waits for a line, then builds.
CHILD = """
import sys
from pathlib import Path
from mgic_geo.datasets.cloud_cache import build_cache
from mgic_geo.datasets.sources import find_meshes

if __name__ == "__main__":
    file, folder, pool, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    build_cache(file, lambda: find_meshes(folder), pool=pool, seed=0, workers=workers)
    print("done", flush=True)
"""


def build(file, folder, pool=16, **options):
    build_cache(file, lambda: find_meshes(folder), pool=pool, seed=options.pop("seed", 0), **options)
    return file.read_bytes()


def start(tmp_path, file, folder, pool, workers):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, "-W", "ignore", str(script), str(file), str(folder), str(pool), str(workers)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(child):
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("\n")
    child.stdin.flush()


def grown(path: Path, size: int, child: subprocess.Popen) -> bool:
    """Wait until ``path`` holds ``size`` bytes; False if the child ended first."""
    while not (path.exists() and path.stat().st_size >= size):
        if child.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def test_contents(meshes, tmp_path):
    build(tmp_path / "c.h5", meshes)
    train, test = (read_clouds(tmp_path / "c.h5", split, normals=True) for split in ("train", "test"))
    assert train.classes == ("box", "cone")
    assert train.names == tuple(f"{name}_{i:04d}" for name in ("box", "cone") for i in range(3))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    mesh = parse_mesh((meshes / "cone/test/cone_0001.off").read_bytes(), "cone_0001.off")
    points, normals = sample_mesh(mesh, 16, mesh_rng(0, "cone/test/cone_0001.off"))
    np.testing.assert_array_equal(test.points[3], points.astype(np.float16))
    np.testing.assert_array_equal(test.normals[3], normals.astype(np.float16))


def test_same_bytes_however_it_is_made(meshes, tmp_path):
    first = build(tmp_path / "a.h5", meshes)
    time.sleep(1.1)  # HDF5 keeps times in whole seconds, unless told not to
    assert build(tmp_path / "b.h5", meshes, workers=1) == first
    assert build(tmp_path / "c.h5", meshes, seed=1) != first
    assert sorted(path.suffix for path in tmp_path.glob("?.*")) == [".h5"] * 3 + [".lock"] * 3


def test_kill_at_any_moment(meshes, tmp_path):
    """Three runs in turn are killed once a random number of meshes is done; two more, at once, finish."""
    pool, file = 60_000, tmp_path / "c.h5"
    partial = file.with_suffix(".partial")
    record = pool * 12  # bytes of a mesh's points and normals
    expected = build(tmp_path / "expected.h5", meshes, pool)
    children = [start(tmp_path, file, meshes, pool, workers) for workers in (0, 0, 1, 0)]
    for child, done in zip(children[:3], np.sort(np.random.default_rng(0).integers(1, 9, 3)), strict=True):
        with child:
            go(child)
            assert grown(partial, int(done) * record, child)
            child.kill()
            # Workers write to the same pipe: it ends once they are gone too.
            assert child.communicate(timeout=60)[0] == ""
        assert child.returncode == -signal.SIGKILL
        assert not file.exists()
        assert partial.stat().st_size // record >= done
    (tmp_path / ".c.h5.tmp").write_bytes(b"what a kill leaves while the HDF5 file is written")
    go(children[3])
    assert build(file, meshes, pool) == expected
    assert children[3].communicate(timeout=60)[0] == "done\n"
    assert file.read_bytes() == expected
    assert not partial.exists()
    assert not (tmp_path / ".c.h5.tmp").exists()


def test_a_finished_cache_is_left_alone(meshes, tmp_path):
    file = tmp_path / "c.h5"
    build(file, meshes)
    file.with_suffix(".partial").touch()  # left by a kill between the last two steps
    build_cache(file, lambda: pytest.fail("the meshes are not needed"), pool=16, seed=0)
    assert not file.with_suffix(".partial").exists()


def test_corrupt_meshes_are_all_named(meshes, tmp_path):
    (meshes / "box/train/box_0001.off").write_text("OFF\n3 9 0\n")
    (meshes / "cone/test/cone_0000.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n")
    file = tmp_path / "c.h5"
    for _ in range(2):  # the second run finds the sound meshes sampled, and tries the corrupt ones again
        with pytest.raises(CorruptMeshError) as caught:
            build(file, meshes)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"2 mesh(es) of {meshes} cannot be used:"
        assert lines[1].startswith("  box/train/box_0001.off: cannot be parsed")
        assert lines[2] == "  cone/test/cone_0000.off: has no surface: its faces have no area"
        assert "skip_corrupt=True" in lines[3]
        assert not file.exists()
    build(file, meshes, skip_corrupt=True)
    assert read_clouds(file, "train").names == ("box_0000", "box_0002", "cone_0000", "cone_0001", "cone_0002")
    assert len(read_clouds(file, "test")) == 3
    with pytest.raises(CorruptMeshError, match=r"2 mesh\(es\) of the data set behind .*c\.h5"):
        check_complete(file)


def test_of_many_corrupt_meshes_ten_are_named(meshes, tmp_path):
    for number in range(12):
        (meshes / f"box/train/bad_{number:02d}.off").touch()
    file = tmp_path / "c.h5"
    with pytest.raises(CorruptMeshError) as first:
        build(file, meshes)
    build(file, meshes, skip_corrupt=True)
    with pytest.raises(CorruptMeshError) as later:
        check_complete(file)
    problems = tuple(f"box/train/bad_{number:02d}.off: is empty" for number in range(12))
    for error in (first.value, later.value):
        lines = str(error).splitlines()
        assert lines[0].startswith("12 mesh(es) of ")
        assert lines[1:11] == [f"  {problem}" for problem in problems[:10]]
        assert lines[11] == "  … and 2 more"
        assert "skip_corrupt=True" in lines[12]
        assert error.problems == problems


def test_a_link_to_nothing_is_a_corrupt_mesh(meshes, tmp_path):
    (meshes / "box/test/gone.off").symlink_to("nowhere.off")
    with pytest.raises(CorruptMeshError, match=r"box/test/gone\.off: cannot be read \(.*No such file"):
        build(tmp_path / "c.h5", meshes)


def test_a_damaged_zip_member_is_a_corrupt_mesh(meshes, tmp_path):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for mesh in sorted(meshes.rglob("*.off")):
            archive.write(mesh, mesh.relative_to(tmp_path))
    data = path.read_bytes()
    at = data.index(b"OFF")
    path.write_bytes(data[:at] + b"off" + data[at + 3 :])
    with pytest.raises(CorruptMeshError, match=r"box/test/box_0000\.off: cannot be unpacked \(Bad CRC-32"):
        build(tmp_path / "c.h5", path)


def test_a_damaged_cache_is_named(meshes, tmp_path):
    file = tmp_path / "c.h5"
    build(file, meshes)
    check_complete(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"c\.h5 cannot be opened as HDF5 .*; delete it"):
        check_complete(file)


def test_nothing_left(meshes, tmp_path):
    for mesh in meshes.glob("*/test/*.off"):
        mesh.write_text("")
    with pytest.raises(CorruptMeshError, match=r"all test meshes of .* are corrupt"):
        build(tmp_path / "c.h5", meshes, skip_corrupt=True)


def test_progress_bar_is_for_terminals(meshes, tmp_path, capfd):
    build(tmp_path / "c.h5", meshes)
    assert capfd.readouterr() == ("", "")


def test_a_script_needs_no_main_guard(meshes, tmp_path):
    """Workers do not import the running script."""
    script = tmp_path / "bare.py"
    script.write_text(CHILD.replace('if __name__ == "__main__":', "if True:"))
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "c.h5"), str(meshes), "16", "2"]
    run = subprocess.run(command, input="\n", stdout=subprocess.PIPE, text=True, timeout=60)
    assert run.stdout == "ready\ndone\n"
    assert (tmp_path / "c.h5").read_bytes() == build(tmp_path / "d.h5", meshes)


@pytest.mark.parametrize("many", [True, False])
def test_by_default_many_meshes_are_sampled_on_all_cores(meshes, tmp_path, monkeypatch, many):
    seen = []

    def sample_with_workers(tasks, workers):
        seen.append(workers)
        for task in tasks:
            yield from cloud_cache.sample_chunk(*task)

    size = sum(file.stat().st_size for file in meshes.rglob("*.off")) + 10 * cloud_cache._MESH_BYTES
    monkeypatch.setattr(cloud_cache, "sample_with_workers", sample_with_workers)
    monkeypatch.setattr(cloud_cache, "usable_cores", lambda: 7)
    monkeypatch.setattr(cloud_cache, "_MANY_BYTES", size - many)
    build(tmp_path / "c.h5", meshes)
    assert seen == ([7] if many else [])
