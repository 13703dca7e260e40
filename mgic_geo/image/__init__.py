"""Images: residual, bottleneck and inverted residual blocks, and their MGIC forms; a single MGIC layer."""

from mgic_geo.image.blocks import BasicBlock2d as BasicBlock2d
from mgic_geo.image.blocks import Bottleneck2d as Bottleneck2d
from mgic_geo.image.blocks import InvertedResidual2d as InvertedResidual2d
from mgic_geo.image.mgic_blocks import MGICBasicBlock2d as MGICBasicBlock2d
from mgic_geo.image.mgic_blocks import MGICBottleneck2d as MGICBottleneck2d
from mgic_geo.image.mgic_blocks import MGICInvertedResidual2d as MGICInvertedResidual2d
from mgic_geo.image.mgic_conv import MGICConv2d as MGICConv2d
