"""Existing models, their blocks and layers replaced by MGIC forms."""

from mgic_geo.convert.replace import replace_convs as replace_convs
from mgic_geo.convert.table import Conversion as Conversion
from mgic_geo.convert.table import Row as Row
