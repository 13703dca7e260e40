"""EdgeConv, sums and maxima over neighbours, and k-NN by Triton kernels, where a GPU is at hand."""

from mgic_geo.graph.gpu.edge_layer import edge_conv, fits, fits_norm, normalised_edge_conv

__all__ = ["edge_conv", "fits", "fits_norm", "normalised_edge_conv"]
