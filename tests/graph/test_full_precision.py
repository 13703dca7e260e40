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


@pytest.fixture
def nothing_set():
    yield
    torch.set_float32_matmul_precision("highest")
    for settings in (torch.backends, torch.backends.cuda.matmul, matmul):
        settings.fp32_precision = "none"


@pytest.mark.parametrize("set_", ["", "set_float32_matmul_precision", "allow_tf32", "everywhere", "matmul"])
def test_settings_of_either_kind_go_on_to_agree(set_, nothing_set):
    """The older ones, and those that a backend inherits: reading contradictory ones raises."""
    cuda = torch.backends.cuda.matmul
    matmul.fp32_precision = "none"
    if set_ == "set_float32_matmul_precision":
        torch.set_float32_matmul_precision("high")
    if set_ == "allow_tf32":
        cuda.allow_tf32 = True
    if set_ == "everywhere":
        torch.backends.fp32_precision = "tf32"
    if set_ == "matmul":
        cuda.fp32_precision = "tf32"
    before = cuda.fp32_precision, matmul.fp32_precision
    with full_precision("cpu"):
        assert not cuda.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        assert {cuda.fp32_precision, matmul.fp32_precision} <= {"ieee", "none"}
    assert (cuda.fp32_precision, matmul.fp32_precision) == before
    if set_ in ("set_float32_matmul_precision", "allow_tf32"):
        assert cuda.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"


def test_what_was_inherited_is_inherited_again(nothing_set):
    matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    with full_precision("cpu"):
        pass
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == matmul.fp32_precision == "ieee"
