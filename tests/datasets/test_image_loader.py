import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mgic_geo.datasets import ImageAugment, ImageLoader, Images, Normalization

PLAIN = Normalization((0, 0, 0), (1 / 255, 1 / 255, 1 / 255))  # batches hold the bytes, as floats


def images(count=10):
    """Every pixel of image s is s: a batch tells which images it took."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 6).contiguous()
    return Images(pixels, torch.arange(count) % 3, tuple(map(str, range(count))), ("a", "b", "c"))


def loader(count, batch_size, **parts):
    return ImageLoader(images(count), batch_size, **({"normalization": PLAIN} | parts))


def epoch(loader, number=0):
    loader.set_epoch(number)
    batches = list(loader)
    assert len(batches) == len(loader)
    return torch.cat([pixels for pixels, _ in batches]), torch.cat([labels for _, labels in batches])


def taken(loader, number=0):
    return epoch(loader, number)[0].amax((1, 2, 3)).round().int().tolist()


def test_evaluation_is_in_order_and_complete():
    assert [len(labels) for _, labels in loader(10, 4)] == [4, 4, 2]
    pixels, labels = epoch(loader(10, 4))
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.allclose(pixels, images(10).images.float(), atol=1e-4)
    assert torch.equal(labels, images(10).labels)


def test_labels_follow_their_images():
    pixels, labels = epoch(loader(10, 5, train=True, augment=ImageAugment(padding=2)))
    order = pixels.amax((1, 2, 3)).round().long()
    assert torch.equal(labels, order % 3)
    assert order.tolist() != sorted(order.tolist())


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_the_work(world):
    seen, tested = [], []
    for rank in range(world):
        shard = loader(14, 2, train=True, rank=rank, world_size=world)
        assert len(shard) == 14 // world // 2
        seen += taken(shard, 1)
        tested += taken(loader(14, 4, rank=rank, world_size=world))
    assert len(set(seen)) == len(seen) == 14 // world // 2 * 2 * world
    assert sorted(tested) == list(range(14))


def test_an_epoch_depends_on_seed_epoch_and_rank_only():
    def pixels(number, **parts):
        return epoch(loader(10, 2, train=True, augment=ImageAugment(padding=1), **parts), number)[0]

    assert torch.equal(pixels(3), pixels(3))
    assert not torch.equal(pixels(3), pixels(4))
    assert not torch.equal(pixels(3), pixels(3, seed=1))
    resumed = loader(10, 2, train=True, augment=ImageAugment(padding=1))
    for number in range(3):
        epoch(resumed, number)
    assert torch.equal(epoch(resumed, 3)[0], pixels(3))


def test_ranks_augment_differently():
    shards = [
        loader(8, 4, train=True, augment=ImageAugment(padding=2), rank=rank, world_size=2) for rank in (0, 1)
    ]
    holes = [(epoch(shard)[0] == 0).sum((1, 2, 3)).tolist() for shard in shards]
    assert holes[0] != holes[1]


def test_padding_is_black_before_normalisation():
    normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    pixels, _ = epoch(
        loader(20, 20, train=True, normalization=normalization, augment=ImageAugment(padding=3))
    )
    assert pixels.min() == -2


def test_cutout_takes_the_mean_colour():
    normalization = Normalization((0.5, 0.6, 0.7), (0.25, 0.25, 0.25))
    augment = ImageAugment(padding=0, flip=False, cutout=3)
    pixels, _ = epoch(loader(20, 20, train=True, normalization=normalization, augment=augment))
    assert (pixels.abs().amax(1) < 1e-6).flatten(1).any(1).all()


@pytest.mark.parametrize("train", [False, True])
def test_channels_last(train):
    augment = ImageAugment(padding=1, cutout=2) if train else None
    plain = loader(8, 4, train=train, augment=augment)
    last = loader(8, 4, train=train, augment=augment, channels_last=True)
    for (a, _), (b, _) in zip(plain, last, strict=True):
        assert a.is_contiguous()
        assert b.is_contiguous(memory_format=torch.channels_last)
        assert not b.is_contiguous()
        assert torch.equal(a, b)


def test_the_split_is_not_touched():
    data = images()
    before = data.images.clone()
    list(ImageLoader(data, 5, normalization=PLAIN, train=True, augment=ImageAugment(cutout=2)))
    assert torch.equal(data.images, before)


@pytest.mark.parametrize("free", [2**30, 1])
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_keeps_the_images_if_they_fit(device, free, monkeypatch):
    def pin(tensor):
        if tensor.device.type != "cpu":
            raise RuntimeError(f"cannot pin {tensor.type()}: only dense CPU tensors can be pinned")
        return tensor

    data = images()
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    with FakeTensorMode(allow_non_fake_inputs=True):  # of a GPU that is not there
        gpu = ImageLoader(data, 4, normalization=PLAIN, device=device)
        kept = {part.device.type for part in (gpu._images, gpu._targets)}
        batches = list(gpu)
    assert kept == {"cuda" if free > 1 else "cpu"}
    assert {part.device for batch in batches for part in batch} == {torch.device("cuda:0")}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"rank": 1}, "rank must lie in 0 … world_size - 1 = 0; got 1"),
        ({"augment": ImageAugment()}, "pass train=True"),
        ({"batch_size": 11, "train": True}, "10 images do not fill one training batch of 11"),
    ],
)
def test_values_are_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        loader(10, **({"batch_size": 2} | parts))
