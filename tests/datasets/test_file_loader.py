import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mgic_geo.datasets import (
    CorruptImageError,
    FileLoader,
    Normalization,
    PerSample,
    SegmentationAugment,
)

PLAIN = Normalization((0, 0, 0), (1 / 255, 1 / 255, 1 / 255))  # batches hold the bytes, as floats
HEIGHT, WIDTH = 12, 16


class Numbered:
    """Files without files: every pixel of image s is s + 1; those in ``bad`` are corrupt."""

    def __init__(self, count, bad=(), height=HEIGHT):
        self.count, self.bad, self.height = count, bad, height

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index}.png"

    def read(self, index):
        if index in self.bad:
            raise CorruptImageError("cannot be decoded")
        height = self.height + index % 2 * (self.height != HEIGHT)
        return torch.full((3, height, WIDTH), index + 1, dtype=torch.uint8), torch.tensor(index % 3)


class Places(Numbered):
    """Images whose red is row and green column, and masks that say row // 4 * 4 + column // 4."""

    def read(self, index):
        rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
        image = torch.stack([16 * rows, 15 * columns, 0 * rows]).byte()
        return tv_tensors.Image(image), tv_tensors.Mask((rows // 4 * 4 + columns // 4).byte())


CROP = v2.RandomCrop(8)  # of constant images: only their black frame tells where
FRAMED = v2.Compose([v2.Pad(6), v2.RandomCrop(12)])


def loader(files, batch_size, **parts):
    return FileLoader(files, batch_size, **({"normalization": PLAIN, "workers": 0} | parts))


def epoch(loader, number=0):
    loader.set_epoch(number)
    batches = list(loader)
    assert len(batches) == len(loader)
    return torch.cat([pixels for pixels, _ in batches]), torch.cat([targets for _, targets in batches])


def test_evaluation_is_in_order_and_complete():
    plain = loader(Numbered(10), 4)
    assert [len(labels) for _, labels in plain] == [4, 4, 2]
    pixels, labels = epoch(plain)
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.allclose(pixels.mean((1, 2, 3)), torch.arange(1.0, 11), atol=1e-4)
    assert torch.equal(labels, torch.arange(10) % 3)


@pytest.mark.parametrize("world", [1, 3])
def test_ranks_share_the_work(world):
    seen, tested = [], []
    for rank in range(world):
        parts = {"rank": rank, "world_size": world}
        seen += epoch(loader(Numbered(14), 2, train=True, **parts), 1)[0][:, 0, 0, 0].round().int().tolist()
        tested += epoch(loader(Numbered(14), 4, **parts))[0][:, 0, 0, 0].round().int().tolist()
    assert len(set(seen)) == len(seen) == 14 // world // 2 * 2 * world
    assert sorted(tested) == list(range(1, 15))


def test_workers_change_nothing_and_epochs_repeat():
    """Two workers that stay, or none: the same batches; a resumed epoch is the uninterrupted one."""
    alone = loader(Numbered(8), 2, train=True, transform=FRAMED)
    first = [epoch(alone, number) for number in range(3)]
    assert not torch.equal(first[1][0], first[2][0])
    helped = loader(Numbered(8), 2, train=True, transform=FRAMED, workers=2)
    for number in (2, 0):
        for got, wanted in zip(epoch(helped, number), first[number], strict=True):
            assert torch.equal(got, wanted)
    other = epoch(loader(Numbered(8), 2, train=True, transform=FRAMED, seed=1), 2)
    assert not torch.equal(other[0], first[2][0])


def test_an_epoch_left_early_does_not_show_in_the_next():
    helped = loader(Numbered(12), 2, train=True, transform=FRAMED, workers=1)
    next(iter(helped))
    wanted = epoch(loader(Numbered(12), 2, train=True, transform=FRAMED), 3)
    for got, part in zip(epoch(helped, 3), wanted, strict=True):
        assert torch.equal(got, part)


def test_a_sample_changes_alike_on_any_rank():
    def by_image(world):
        parts = [
            epoch(loader(Numbered(8), 2, train=True, transform=FRAMED, rank=rank, world_size=world), 5)[0]
            for rank in range(world)
        ]
        images = torch.cat(parts)
        return images[images.amax((1, 2, 3)).argsort()]

    assert torch.equal(by_image(1), by_image(2))


def test_the_models_randomness_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    epoch(loader(Numbered(8), 2, train=True, transform=FRAMED))
    assert torch.equal(torch.get_rng_state(), before)


def test_v2_and_ours_change_image_and_mask_alike():
    crop = v2.Compose([v2.RandomCrop(9), v2.RandomHorizontalFlip()])
    ours = PerSample(SegmentationAugment(size=(9, 9), scale=(1, 1)), PLAIN)
    for transform in (crop, ours):
        pixels, masks = epoch(loader(Places(6), 3, train=True, transform=transform), 2)
        rows, columns = (pixels[:, 0] / 16).round().long(), (pixels[:, 1] / 15).round().long()
        assert torch.equal(masks, rows // 4 * 4 + columns // 4)
        assert len(rows[:, 0, 0].unique()) > 1


def test_corrupt_images_of_a_batch_are_named():
    for workers in (0, 1):
        batches = iter(loader(Numbered(6, bad=(2, 3)), 2, workers=workers))
        next(batches)
        with pytest.raises(CorruptImageError) as caught:
            next(batches)
        text = str(caught.value)
        assert text.startswith("2 file(s) of the batch cannot be used:\n  2.png: cannot be decoded\n  3.png:")
        assert "skip_corrupt=True" in text


def test_images_of_many_sizes_need_a_transform():
    with pytest.raises(
        ValueError, match=r"differ in size, such as \(10, 16\) and \(11, 16\); pass a transform"
    ):
        list(loader(Numbered(4, height=10), 2))
    assert len(epoch(loader(Numbered(4, height=10), 2, transform=CROP))[0]) == 4


def test_channels_last():
    for (a, _), (b, _) in zip(
        loader(Numbered(4), 2), loader(Numbered(4), 2, channels_last=True), strict=True
    ):
        assert a.is_contiguous()
        assert b.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(a, b)


def test_values_are_checked():
    with pytest.raises(ValueError, match="10 images do not fill one training batch of 11"):
        loader(Numbered(10), 11, train=True)
