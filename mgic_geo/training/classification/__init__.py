"""Classifiers of images and point clouds: how they are trained, judged and shown."""
