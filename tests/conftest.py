"""The same examples in every run; ``--hypothesis-profile=default`` draws new ones."""

import os

import torch
from hypothesis import settings

# Without a deadline: the first example may compile the kernels.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Without a GPU its kernels are interpreted on the CPU, which Triton wants to know ahead of its import.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# mgic_geo/graph/gpu/when.py says why kernels need this torch.
collect_ignore_glob = [] if torch.__version__ >= "2.14a0" else ["graph/gpu/*"]
