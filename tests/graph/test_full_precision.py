import threading

import pytest
import torch

from mgic_geo import knn
from mgic_geo.graph.full_precision import full_precision
from mgic_geo.native import plain_torch

matmul = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def half():
    """What a user may have set."""
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    yield
    matmul.fp32_precision = before


def test_ends_with_what_it_was_for():
    inside = []

    def fail():
        with full_precision("cpu"):
            inside.extend([matmul.fp32_precision, torch.is_autocast_enabled("cpu")])
            raise KeyError

    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(KeyError):
            fail()
        assert (matmul.fp32_precision, torch.is_autocast_enabled("cpu")) == ("bf16", True)
    assert inside == ["ieee", False]


def test_threads_that_overlap_leave_it_as_it_was():
    entered, leave, seen = threading.Event(), threading.Event(), []

    def long():
        with full_precision("cpu"):
            entered.set()
            leave.wait(10)
            seen.append(matmul.fp32_precision)

    other = threading.Thread(target=long)
    with full_precision("cpu"):
        other.start()
        assert entered.wait(10)
    assert matmul.fp32_precision == "ieee"  # the other one is still at work
    leave.set()
    other.join()
    assert seen == ["ieee"]
    assert matmul.fp32_precision == "bf16"


def test_knn_is_exact_whatever_is_set():
    x = torch.randn(1, 300, 64, generator=torch.Generator().manual_seed(0))
    with plain_torch():
        table = knn(x, 10)
    assert torch.equal(table, knn(x.double(), 10))
    assert matmul.fp32_precision == "bf16"
