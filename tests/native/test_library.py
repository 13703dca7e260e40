import re
from pathlib import Path

import compiled
import pytest

from mgic_geo.native import kernels, library, plain_torch, why_not


@pytest.mark.parametrize("value", ["0", "off", "False", "no"])
def test_switched_off(monkeypatch, value):
    monkeypatch.setenv("MGIC_NATIVE", value)
    assert library.load.__wrapped__() == (None, f"switched off by MGIC_NATIVE={value}")


@compiled.needed
def test_switched_off_inside_a_block():
    def fail():
        with plain_torch():
            assert kernels() is None
            raise KeyError

    with plain_torch():
        with plain_torch():
            assert kernels() is None
        assert kernels() is None
    assert kernels() is not None
    with pytest.raises(KeyError):
        fail()
    assert kernels() is not None
    assert why_not() is None


def test_arguments_are_those_of_the_c_sources():
    pointer, integer, real = library._TYPES.values()
    found = library._signatures()
    assert found["mgic_linear"] == [pointer] * 3 + [integer] * 5 + [pointer, integer]
    assert found["mgic_edge_conv"] == [pointer] * 4 + [integer] * 6 + [pointer] * 3 + [integer]
    graph = [integer] * 6 + [real] + [pointer] * 11  # from a macro
    assert found["mgic_scores"] == [*graph, pointer, integer]
    assert found["mgic_messages"] == [*graph, *[pointer] * 3, integer]


def test_every_kernel_that_is_called_is_there():
    package = Path(library.__file__).parents[1]
    text = "".join(path.read_text() for path in package.rglob("*.py"))
    called = set(re.findall(r"""\brun\(\s*"(\w+)\"""", text))
    assert len(called) > 20
    assert {f"mgic_{name}" for name in called} <= library._signatures().keys()
