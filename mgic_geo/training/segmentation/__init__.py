"""Segmenters of images: how they are trained, judged and shown."""
