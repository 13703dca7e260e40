"""Data sets: point clouds and images, augmentation, and batches on the device.

What needs torchvision is imported when it is asked for: point clouds do not need it.
"""
# ruff: noqa: E402

from importlib import import_module
from typing import TYPE_CHECKING

from ..extras import needs

needs("mgic_geo.datasets", "train", "filelock", "h5py", "PIL", "tqdm", "trimesh")

from ..normalization import IMAGENET as IMAGENET
from ..normalization import Normalization as Normalization
from .camvid import load_camvid as load_camvid
from .cifar10 import load_images as load_images
from .cloud_augment import Augment as Augment
from .cloud_loader import CloudLoader as CloudLoader
from .clouds import PointClouds as PointClouds
from .clouds import read_clouds as read_clouds
from .clouds import write_clouds as write_clouds
from .color import Color as Color
from .download import DownloadError as DownloadError
from .file_loader import FileLoader as FileLoader
from .file_loader import PerSample as PerSample
from .graphs import PLANETOID as PLANETOID
from .graphs import block_model as block_model
from .graphs import load_planetoid as load_planetoid
from .graphs import load_tudataset as load_tudataset
from .graphs import mixing_graphs as mixing_graphs
from .image_augment import ImageAugment as ImageAugment
from .image_loader import ImageLoader as ImageLoader
from .images import Images as Images
from .masks import IGNORE as IGNORE
from .masks import SegmentedImages as SegmentedImages
from .meshes import CorruptMeshError as CorruptMeshError
from .meshes import parse_mesh as parse_mesh
from .meshes import sample_mesh as sample_mesh
from .meshes import unit_sphere as unit_sphere
from .modelnet import load_clouds as load_clouds
from .problems import CorruptImageError as CorruptImageError
from .scans import read_points as read_points
from .segmentation import check_labels as check_labels
from .segmentation import label_counts as label_counts
from .segmentation import load_segmentation as load_segmentation
from .segmentation import palette_of as palette_of
from .segmentation_augment import SegmentationAugment as SegmentationAugment
from .splits import split_validation as split_validation

if TYPE_CHECKING:
    from .cityscapes import SegmentedFiles as SegmentedFiles
    from .cityscapes import load_cityscapes as load_cityscapes
    from .imagenet import ImageFiles as ImageFiles
    from .imagenet import eval_transform as eval_transform
    from .imagenet import load_image_files as load_image_files
    from .imagenet import train_transform as train_transform
    from .pool import ImagePool as ImagePool
    from .pool import fit_size as fit_size
    from .pool import open_images as open_images
    from .pool import read_image as read_image

_LATER = {
    "SegmentedFiles": "cityscapes",
    "load_cityscapes": "cityscapes",
    "ImageFiles": "imagenet",
    "eval_transform": "imagenet",
    "load_image_files": "imagenet",
    "train_transform": "imagenet",
    "ImagePool": "pool",
    "fit_size": "pool",
    "open_images": "pool",
    "read_image": "pool",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    needs(f"mgic_geo.datasets.{name}", "train", "torchvision")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
