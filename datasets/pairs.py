"""Images with masks in one folder or archive, decoded into tensors of one size."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from .cachefile import Content, progress_bar
from .decode import decode_image, is_image
from .files import read_files
from .hdf5 import as_bytes
from .layout import check_one_root
from .problems import CorruptImageError, corrupt, lines, odd_size

LAYOUT = "NAME/<split>/*.jpg (or .png) with masks NAME/<split>annot/*.png"


@dataclass
class _Pair:
    """The files of an image and its mask, and what was decoded of them."""

    files: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


def decode_pairs(path: Path, labels: Callable[[bytes], Tensor], progress: bool) -> Content:
    """Decode all splits of the data set at ``path``.

    A folder whose partner is missing, such as a test split without masks, is no split; a single file whose
    partner is missing is a problem.

    Args:
        path: A folder, zip or tar.
        labels: Decodes the content of a mask to (H, W) uint8; raises CorruptImageError.
        progress: Show a progress bar, if stderr is a terminal.

    Returns:
        A group a split, with ``images`` (S, 3, H, W), ``masks`` (S, H, W) and ``names``; the problems; and
        the number of files, masks included.

    Raises:
        ValueError: If ``path`` is not in the layout.
        CorruptImageError: If a split has no pair without problems.
    """
    pairs: defaultdict[tuple[str, str], _Pair] = defaultdict(_Pair)
    problems: dict[str, str] = {}
    roots = set()
    with progress_bar(path.name, progress) as bar:
        for name, read in read_files(path, _in_folder):
            folder = name.parts[-2]
            pair = pairs[folder.removesuffix("annot"), name.stem]
            part = "mask" if folder.endswith("annot") else "image"
            pair.files[part] = f"{folder}/{name.name}"
            roots.add(name.parts[:-2])
            try:
                pair.parts[part] = labels(read()) if part == "mask" else decode_image(read())
            except CorruptImageError as error:
                problems[pair.files[part]] = str(error)
            bar.update()
    present = {(split, part) for (split, _), pair in pairs.items() for part in pair.files}
    splits = sorted(split for split, part in present if part == "mask" and (split, "image") in present)
    if not splits:
        raise ValueError(f"{path} holds no images with masks; the layout is {LAYOUT}")
    check_one_root(path, roots)
    pairs = defaultdict(_Pair, {key: pairs[key] for key in sorted(pairs) if key[0] in splits})
    problems |= _mismatches(list(pairs.values()))
    groups = {}
    for split in splits:
        good = [(name, pair.parts) for (where, name), pair in pairs.items() if where == split]
        good = [(name, parts) for name, parts in good if len(parts) == 2]
        if not good:
            raise corrupt(lines(problems), path, f"No other {split} images are left.")
        groups[split] = {
            "images": torch.stack([parts["image"] for _, parts in good]).numpy(),
            "masks": torch.stack([parts["mask"] for _, parts in good]).numpy(),
            "names": as_bytes(tuple(name for name, _ in good)),
        }
    return groups, {}, lines(problems), sum(len(pair.files) for pair in pairs.values())


def _mismatches(pairs: Sequence[_Pair]) -> dict[str, str]:
    """What is wrong between files; empties the pairs concerned."""
    problems = {}
    sizes = Counter(pair.parts["image"].shape[1:] for pair in pairs if "image" in pair.parts)
    usual = sizes.most_common(1)[0][0] if sizes else torch.Size()
    for pair in pairs:
        (file, *others), shapes = pair.files.values(), {k: v.shape[-2:] for k, v in pair.parts.items()}
        if not others:
            missing = "image" if "mask" in pair.files else "mask"
            problems[file] = f"has no {missing} of its name"
        elif len(shapes) == 2 and shapes["image"] != shapes["mask"]:
            image, mask = (_size(shapes[part]) for part in ("image", "mask"))
            problems[pair.files["mask"]] = f"is {mask}, but its image is {image}"
        elif len(shapes) == 2 and shapes["image"] != usual:
            problems[pair.files["image"]] = odd_size(shapes["image"], usual)
        else:
            continue
        pair.parts.clear()
    return problems


def _size(shape: torch.Size) -> str:
    return f"{shape[0]} × {shape[1]}"


def _in_folder(name: PurePosixPath) -> bool:
    return len(name.parts) >= 2 and is_image(name.name)
