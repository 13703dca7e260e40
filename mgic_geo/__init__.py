"""Multigrid-in-channels blocks for PyTorch: cost linear in width, full coupling kept."""

import warnings as _warnings

import torch as _torch

with _warnings.catch_warnings():
    # While torch-geometric 2.8 is imported it calls torch.jit.script, which newer torch deprecates, and calls
    # torch-cluster, our optional backend, unnecessary: no news that a user of this package could act on.
    _warnings.filterwarnings(
        "ignore", "`torch.jit.script` is deprecated|'torch-cluster' is no longer necessary"
    )
    import torch_geometric.nn as _pyg  # noqa: F401

    # And torch announces once a process that its CSR layout, which sums over edges use, is in beta, and up to
    # 2.13 that it is not checked, even where told not to check it. Here, as filters are the whole process's:
    # a layer that changed them while it runs would do so for all threads.
    _warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta|Sparse invariant checks are")
    _none = _torch.zeros(1, dtype=_torch.int64, device="cpu")
    _torch.sparse_csr_tensor(_none, _none[:0], _none[:0], size=(0, 0), check_invariants=False)

from mgic_geo.complexity import complexity as complexity
from mgic_geo.convert import Conversion as Conversion
from mgic_geo.convert import replace_convs as replace_convs
from mgic_geo.core import MGICMLP as MGICMLP
from mgic_geo.core import ChannelHierarchy as ChannelHierarchy
from mgic_geo.core import GroupedLinear as GroupedLinear
from mgic_geo.core import MGICBlock as MGICBlock
from mgic_geo.core import MGICLinear as MGICLinear
from mgic_geo.core import Prolongation as Prolongation
from mgic_geo.core import Restriction as Restriction
from mgic_geo.export import export_onnx as export_onnx
from mgic_geo.fuse import fuse as fuse
from mgic_geo.graph import EdgeConv as EdgeConv
from mgic_geo.graph import MGICDynamicEdgeConv as MGICDynamicEdgeConv
from mgic_geo.graph import MGICGraphConv as MGICGraphConv
from mgic_geo.graph import grouped as grouped
from mgic_geo.graph import knn as knn
from mgic_geo.graph import knn_graph as knn_graph
from mgic_geo.image import BasicBlock2d as BasicBlock2d
from mgic_geo.image import Bottleneck2d as Bottleneck2d
from mgic_geo.image import InvertedResidual2d as InvertedResidual2d
from mgic_geo.image import MGICBasicBlock2d as MGICBasicBlock2d
from mgic_geo.image import MGICBottleneck2d as MGICBottleneck2d
from mgic_geo.image import MGICConv2d as MGICConv2d
from mgic_geo.image import MGICInvertedResidual2d as MGICInvertedResidual2d
from mgic_geo.memory import keep_memory as keep_memory
from mgic_geo.model_file import ImageCard as ImageCard
from mgic_geo.model_file import ModelCard as ModelCard
from mgic_geo.model_file import save_model as save_model
from mgic_geo.models import MGICGAT as MGICGAT
from mgic_geo.models import MGICGCN as MGICGCN
from mgic_geo.models import MGICGIN as MGICGIN
from mgic_geo.models import MGICGraphSAGE as MGICGraphSAGE
from mgic_geo.models import create_model as create_model
from mgic_geo.models import list_models as list_models
from mgic_geo.pretrained import from_pretrained as from_pretrained
from mgic_geo.scaling import scaling as scaling
from mgic_geo.weights import list_pretrained as list_pretrained
from mgic_geo.weights_file import load_weights as load_weights
from mgic_geo.weights_file import save_weights as save_weights

__version__ = "0.1.0"
