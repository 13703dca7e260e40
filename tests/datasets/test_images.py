import pytest
import torch

from mgic_geo.datasets import Images, split_validation


def images(count=6, height=4, width=5, classes=("a", "b")):
    generator = torch.Generator().manual_seed(0)
    return Images(
        torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator),
        torch.arange(count) % len(classes),
        tuple(map(str, range(count))),
        classes,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(6, 3, 4, 5)}, r"images must be \(6, 3, H, W\) in uint8, .* in float32"),
        ({"images": torch.zeros(5, 3, 4, 5, dtype=torch.uint8)}, r"got \(5, 3, 4, 5\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels must be \(6,\)"),
        ({"labels": torch.full((6,), 2)}, r"labels must lie in 0 … 1"),
    ],
)
def test_parts_must_fit(change, message):
    parts = {name: getattr(images(), name) for name in ("images", "labels", "names", "classes")}
    with pytest.raises(ValueError, match=message):
        Images(**(parts | change))


def test_validation_is_drawn_class_by_class():
    train = images(40)
    kept, drawn = split_validation(train, 0.25, seed=3)
    assert sorted(kept.names + drawn.names, key=int) == list(train.names)
    assert drawn.labels.bincount().tolist() == [5, 5]
    for part in (kept, drawn):
        where = torch.tensor([int(name) for name in part.names])
        assert torch.equal(part.images, train.images[where])
        assert torch.equal(part.labels, train.labels[where])
    assert split_validation(train, 0.25, seed=3)[1].names == drawn.names
    assert split_validation(train, 0.25, seed=4)[1].names != drawn.names
