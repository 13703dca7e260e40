import pytest
from triton_kernels import compile_for_gpu

from mgic_geo.graph.gpu import knn


@pytest.mark.parametrize("gpu", [80, 90])
def test_compiles(tmp_path, gpu):
    floats, integers = dict.fromkeys(("x", "norms"), "*fp32"), dict.fromkeys(("listed", "table"), "*i64")
    tile = {name: size for name, size in knn._TILE.items() if name.isupper()}
    variants = [
        ("nearest", {"DIRECT": direct, "LISTED": listed, "LOOP": gpu == 80, "KEEP": 16, **tile})
        for direct, listed in ((True, False), (False, False), (True, True))
    ]
    types = {**floats, **integers, "doubt": "*i1", "factor": "fp32"}
    compile_for_gpu(tmp_path, gpu, "knn_kernels", variants, types)
