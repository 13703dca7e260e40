import subprocess
import sys

import pytest

# Faults of pages while tensors of 4 MB come and go, after the first have been freed.
SCRIPT = """
import resource, sys, torch
from mgic_geo.training.memory import keep_memory
if sys.argv[1] == "keep" and not keep_memory():
    print("unknown"); sys.exit()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for round in range(20):
    if round == 10:
        before = faults()
    kept = [torch.zeros(2**20) for _ in range(16)]
    del kept
print(faults() - before)
"""


def test_keep_memory_saves_page_faults() -> None:
    counts = {}
    for how in ("keep", "leave"):
        run = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
        counts[how] = run.stdout.strip()
    if counts["keep"] == "unknown":
        pytest.skip("this C library has no such switch")
    assert int(counts["keep"]) < 100
    assert int(counts["keep"]) <= int(counts["leave"])
