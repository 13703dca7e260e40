import subprocess
import sys
from pathlib import Path

import pytest

import mgic_geo.memory

# Page faults while buffers of 16 MB come and go, before and after; in a process of its own, since it stays.
SCRIPT = """
import resource, runpy, sys
keep_memory = runpy.run_path(sys.argv[1])["keep_memory"]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        kept = [b"x" * 2**24 for _ in range(4)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults()
taken = keep_memory()
faults()
print(taken, left, faults())
"""


def test_keep_memory_saves_page_faults() -> None:
    file = str(Path(mgic_geo.memory.__file__))
    run = subprocess.run([sys.executable, "-c", SCRIPT, file], capture_output=True, text=True, check=True)
    taken, left, kept = run.stdout.split()
    if taken == "False":
        pytest.skip("this C library has no such switch")
    assert int(kept) < 100 < int(left)
