"""mgic_geo.graph"""
