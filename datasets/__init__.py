"""Data sets: point clouds from meshes or HDF5 files, augmentation, and batches on the device."""

from .augment import Augment as Augment
from .clouds import PointClouds as PointClouds
from .clouds import read_clouds as read_clouds
from .clouds import write_clouds as write_clouds
from .download import DownloadError as DownloadError
from .loader import CloudLoader as CloudLoader
from .meshes import CorruptMeshError as CorruptMeshError
from .meshes import parse_mesh as parse_mesh
from .meshes import sample_mesh as sample_mesh
from .meshes import unit_sphere as unit_sphere
from .modelnet import load_clouds as load_clouds
from .splits import split_validation as split_validation
