"""Multigrid-in-channels blocks for PyTorch."""
