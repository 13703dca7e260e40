"""Networks, by class or by name."""

from mgic_geo.models.dgcnn import DGCNN as DGCNN
from mgic_geo.models.registry import create_model as create_model
from mgic_geo.models.registry import list_models as list_models
