"""mgic_geo.models"""
