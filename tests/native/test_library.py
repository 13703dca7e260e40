import re

import compiled
import pytest

from mgic_geo.native import compiler, kernels, library, plain_torch, why_not


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


@compiled.needed
def test_every_kernel_is_told_its_arguments():
    """As many as its C declaration has."""
    text = "".join(path.read_text() for path in sorted(compiler._FOLDER.glob("*.[ch]")))
    # Kernels that begin with the same arguments have them from a macro.
    macros = re.findall(r"#define (\w+) +\\\n((?:.*\\\n)*.*)", text)
    shared = {name: re.sub(r"\\\n", " ", body) for name, body in macros}
    declared = {}
    for name, arguments in re.findall(r"void (mgic_\w+)\(([^)]*)\)", text):
        whole = re.sub(r"\b[A-Z]+\b", lambda match: shared[match[0]], arguments)
        kinds = {"*": library._POINTER, "int64_t": library._INTEGER, "float": library._REAL}
        declared[name] = [kinds["*" if "*" in x else x.split()[0]] for x in whole.split(",")]
    assert declared == library._ARGUMENTS
