"""Graphs and point clouds: k-NN, EdgeConv, grouped message passing, MGIC layers."""

from mgic_geo.graph.edge_conv import EdgeConv as EdgeConv
from mgic_geo.graph.edges.edge_csr import clear_graph_cache as clear_graph_cache
from mgic_geo.graph.grouped import grouped as grouped
from mgic_geo.graph.knn import knn as knn
from mgic_geo.graph.knn import knn_graph as knn_graph
from mgic_geo.graph.mgic_conv import MGICDynamicEdgeConv as MGICDynamicEdgeConv
from mgic_geo.graph.mgic_conv import MGICGraphConv as MGICGraphConv
from mgic_geo.graph.neighbors import Neighbors as Neighbors
