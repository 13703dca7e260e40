"""The method: channel hierarchy, transfer maps, V-cycle. Needs torch only."""

from mgic_geo.core.cycle import MGICBlock as MGICBlock
from mgic_geo.core.hierarchy import ChannelHierarchy as ChannelHierarchy
from mgic_geo.core.linear import MGICLinear as MGICLinear
from mgic_geo.core.mlp import MGICMLP as MGICMLP
from mgic_geo.core.pointwise import GroupedLinear as GroupedLinear
from mgic_geo.core.transfer import Prolongation as Prolongation
from mgic_geo.core.transfer import Restriction as Restriction
