"""Networks, by class or by name."""

from mgic_geo.models.basic_gnn import MGICGAT as MGICGAT
from mgic_geo.models.basic_gnn import MGICGCN as MGICGCN
from mgic_geo.models.basic_gnn import MGICGIN as MGICGIN
from mgic_geo.models.basic_gnn import MGICGraphSAGE as MGICGraphSAGE
from mgic_geo.models.dgcnn import DGCNN as DGCNN
from mgic_geo.models.heads import FeatureMaps as FeatureMaps
from mgic_geo.models.lraspp import LRASPP as LRASPP
from mgic_geo.models.mobilenetv3 import MobileNetV3 as MobileNetV3
from mgic_geo.models.registry import create_model as create_model
from mgic_geo.models.registry import list_models as list_models
from mgic_geo.models.resnet import ResNet as ResNet
