import subprocess
import sys

import pytest

# Faults of pages while tensors of 16 MB come and go, before and after. In a process of its own, since it stays.
SCRIPT = """
import resource, torch
from mgic_geo.training.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        kept = [torch.zeros(2**22) for _ in range(4)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults()
taken = keep_memory()
faults()
print(taken, left, faults())
"""


def test_keep_memory_saves_page_faults() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    taken, left, kept = run.stdout.split()
    if taken == "False":
        pytest.skip("this C library has no such switch")
    assert int(kept) < 100 < int(left)
