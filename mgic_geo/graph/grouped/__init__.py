"""PyG's message-passing layers within channel groups: the definition, and the layers with a fast path."""

from mgic_geo.graph.grouped.conv import FEATURES, GroupedConv, grouped, resolve_conv

__all__ = ["FEATURES", "GroupedConv", "grouped", "resolve_conv"]
