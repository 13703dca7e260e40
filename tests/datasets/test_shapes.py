import numpy as np
import pytest
import torch

from mgic_geo.datasets import PointClouds, load_clouds, shapes
from mgic_geo.datasets.shapes import SHAPES, make_shape, write_shapes


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[PointClouds, PointClouds]:
    return load_clouds("shapes", cache=tmp_path_factory.mktemp("cache"), pool=1024)


def statistics(clouds: PointClouds) -> torch.Tensor:
    """Means, deviations, extents, extremes and second moments of each cloud: 21 numbers."""
    points = clouds.points
    low, high = points.amin(1), points.amax(1)
    moments = torch.einsum("spi,spj->sij", points, points) / points.shape[1]
    rows, columns = torch.triu_indices(3, 3)
    return torch.cat([points.mean(1), points.std(1), high - low, low, high, moments[:, rows, columns]], dim=1)


def linear_accuracy(train: PointClouds, test: PointClouds) -> float:
    """Test accuracy of multinomial logistic regression on the statistics, fitted to convergence."""
    x, y = statistics(train), statistics(test)
    mean, deviation = x.mean(0), x.std(0)
    x, y = (x - mean) / deviation, (y - mean) / deviation
    model = torch.nn.Linear(x.shape[1], len(train.classes))
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(x), train.labels) + 1e-3 * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return float((model(y).argmax(1) == test.labels).float().mean())


def test_a_linear_model_fails(splits, record_property):
    accuracy = linear_accuracy(*splits)
    record_property("linear_accuracy", accuracy)
    assert 0.2 < accuracy < 0.6, f"linear model on point statistics: {accuracy:.1%}"


def test_the_linear_model_itself_works(splits):
    """It tells classes apart where their statistics do: here each class lies at its own place on a circle."""

    def moved(clouds: PointClouds) -> PointClouds:
        angle = clouds.labels * (2 * torch.pi / len(clouds.classes))
        places = torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=1)
        return PointClouds(clouds.points + places[:, None], clouds.labels, clouds.names, clouds.classes)

    assert linear_accuracy(*map(moved, splits)) > 0.99


def test_splits(splits):
    train, test = splits
    assert train.classes == tuple(SHAPES) == tuple(sorted(SHAPES))
    assert train.labels.bincount().tolist() == [shapes.TRAIN_PER_CLASS] * 10
    assert test.labels.bincount().tolist() == [shapes.TEST_PER_CLASS] * 10
    assert not set(train.names) & set(test.names)
    points = torch.cat([train.points, test.points])
    assert len(points.flatten(1).unique(dim=0)) == len(points)


@pytest.mark.parametrize("name", SHAPES)
def test_solids(name):
    first, again, other = (make_shape(name, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    assert first.extents.tolist() != other.extents.tolist()
    assert np.isfinite(first.vertices).all()
    assert first.area_faces.min() > 0
    assert len(first.faces) < 2000


def test_written_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(shapes, "TEST_PER_CLASS", 1)
    folder, temporary = tmp_path / "shapes", tmp_path / "shapes.tmp"
    (temporary / "box" / "train").mkdir(parents=True)  # what a killed run leaves
    (temporary / "box" / "train" / "half.off").touch()
    write_shapes(folder)
    assert not temporary.exists()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.off")}
    assert len(files) == 30
    assert "box/test/box_0003.off" in files
    before = folder.stat().st_mtime_ns
    write_shapes(folder)
    assert folder.stat().st_mtime_ns == before
    write_shapes(tmp_path / "again")
    assert all((tmp_path / "again" / name).read_bytes() == data for name, data in files.items())
