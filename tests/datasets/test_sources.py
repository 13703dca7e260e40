import os
import shutil
import zipfile
from dataclasses import replace

import pytest

from mgic_geo.datasets.sources import find_meshes, opened


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # the archive's order must not matter
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_folder_and_zip_hold_the_same(meshes, tmp_path):
    sources = [find_meshes(path) for path in (meshes, meshes.parent, zipped(meshes, tmp_path / "t.zip"))]
    keys = [[mesh.key for mesh in source.meshes] for source in sources]
    assert keys[0] == keys[1] == keys[2] == sorted(keys[0])
    assert len(keys[0]) == 10
    assert sources[0].classes == ("box", "cone")
    for source in sources:
        mesh = source.meshes[0]
        assert (mesh.name, mesh.label, mesh.split) == ("box_0000", "box", "test")
        with opened(source.path) as read:
            assert read(mesh.path) == (meshes / "box/test/box_0000.off").read_bytes()


def test_what_is_no_mesh_is_passed_over(meshes, tmp_path):
    before = [mesh.key for mesh in find_meshes(meshes).meshes]
    (meshes / "README.txt").touch()
    (meshes / "box/train/.DS_Store").touch()
    (meshes / "box/train/._box_0000.off").touch()
    shadow = meshes / "__MACOSX/box/train"
    shadow.mkdir(parents=True)
    (shadow / "box_0000.off").touch()
    hidden = meshes / ".copy/box/train"
    hidden.mkdir(parents=True)
    (hidden / "box_0000.off").touch()
    for path in (meshes, zipped(meshes, tmp_path / "t.zip")):
        assert [mesh.key for mesh in find_meshes(path).meshes] == before


def test_fingerprint_follows_the_content(meshes, tmp_path):
    first = find_meshes(meshes).fingerprint
    assert find_meshes(meshes).fingerprint == first
    file = meshes / "box/train/box_0000.off"
    os.utime(file, (1e9, 1e9))
    assert find_meshes(meshes).fingerprint != first

    packed = find_meshes(zipped(meshes, tmp_path / "a.zip")).fingerprint
    assert find_meshes(zipped(meshes, tmp_path / "b.zip")).fingerprint == packed
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    assert find_meshes(zipped(meshes, tmp_path / "c.zip")).fingerprint != packed


def test_links_are_followed_and_one_to_nothing_is_a_mesh(meshes, tmp_path):
    root = tmp_path / "links"
    root.mkdir()
    for folder in meshes.iterdir():
        (root / folder.name).symlink_to(folder)
    assert find_meshes(root) == replace(find_meshes(meshes), path=root)
    (meshes / "box/train/gone.off").symlink_to("nowhere.off")
    assert [mesh.size for mesh in find_meshes(root).meshes if mesh.name == "gone"] == [0]


def test_train_and_test_must_have_the_same_classes(meshes):
    shutil.rmtree(meshes / "box/test")
    with pytest.raises(ValueError, match=r"Tiny2's train and test must hold the same class folders; .* box$"):
        find_meshes(meshes)


@pytest.mark.parametrize(
    ("folder", "named"), [("bird", "bird"), ("bird/test", "bird"), ("box/test", "box/test")]
)
def test_a_class_without_meshes_is_named(meshes, tmp_path, folder, named):
    shutil.rmtree(meshes / folder, ignore_errors=True)
    (meshes / folder).mkdir(parents=True)
    for path in (meshes, meshes.parent, zipped(meshes, tmp_path / "t.zip")):
        with pytest.raises(ValueError, match=rf" has folders without meshes: {named}; fill or remove them$"):
            find_meshes(path)


def test_a_class_without_meshes_may_hold_other_things(meshes):
    (meshes / "notes").mkdir()
    (meshes / "notes/license.txt").touch()
    assert find_meshes(meshes).classes == ("box", "cone")
    (meshes / "notes/train").mkdir()
    (meshes / "notes/train/1.txt").touch()
    with pytest.raises(ValueError, match="has folders without meshes: notes/train;"):
        find_meshes(meshes)


def test_wrong_layouts(meshes, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no train or test meshes; the layout is NAME/<class>/"):
        find_meshes(tmp_path / "empty")
    (tmp_path / "broken.zip").write_bytes(zipped(meshes, tmp_path / "t.zip").read_bytes()[:-100])
    with pytest.raises(ValueError, match="neither a folder nor a whole zip"):
        find_meshes(tmp_path / "broken.zip")
    meshes.rename(tmp_path / "empty/one")
    (tmp_path / "empty/two").mkdir()
    (tmp_path / "empty/one/box").rename(tmp_path / "empty/two/box")
    with pytest.raises(ValueError, match=r"several data sets \(one, two\)"):
        find_meshes(tmp_path / "empty")
