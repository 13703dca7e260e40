"""mgic_geo.core"""
