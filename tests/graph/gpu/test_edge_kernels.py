import pytest
from triton_kernels import compile_for_gpu

VARIANTS = [
    ("gather_max", {"HAS_U": True, "BEST": "rank", "MOMENTS": True}),
    ("gather_max", {"HAS_U": True, "BEST": "rank", "MOMENTS": False}),
    ("gather_max", {"HAS_U": False, "BEST": "source", "MOMENTS": False}),
    ("gather_sum", {}),
    ("join_moments", {"ROWS": 128, "COLUMNS": 16}),
    ("norm_apply", {"ROWS": 16, "eps": 1e-5, "slope": 0.2}),
    ("norm_sums", {"ROWS": 16, "eps": 1e-5, "slope": 0.2}),
    ("edge_gradients", {"eps": 1e-5, "MOMENTS": True}),
    ("edge_gradients", {"eps": 0.0, "MOMENTS": False}),
]


@pytest.mark.parametrize(
    ("number", "full", "gpu"), [("fp32", "fp32", 80), ("bf16", "fp32", 90), ("fp64", "fp64", 90)]
)
def test_compiles(tmp_path, number, full, gpu):
    numbers = dict.fromkeys(("u", "v", "of_u", "of_v", "out"), f"*{number}")
    sums = dict.fromkeys(("centre", "parts", "z", "mean", "var", "grad", "hidden", "sums"), f"*{full}")
    indices = dict.fromkeys(("col", "turned_col", "turned_rank"), "*i32")
    types = {"rowptr": "*i64", "turned_rowptr": "*i64", "best": "*u8", "weight": "*fp32", "bias": "*fp32"}
    tile = {"ACC": full, "ROWS": 8, "COLUMNS": 128}
    variants = [(name, {**tile, **constants}) for name, constants in VARIANTS]
    compile_for_gpu(tmp_path, gpu, "edge_kernels", variants, {**types, **numbers, **sums, **indices})
