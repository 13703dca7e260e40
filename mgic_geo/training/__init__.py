"""mgic_geo.training"""
