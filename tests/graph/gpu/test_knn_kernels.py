import pytest
from triton_kernels import compile_for_gpu

CODE = """
    from mgic_geo.graph.gpu.knn import _launch

    for clouds, points, channels, k, loop in {sizes}:
        x, few = random(clouds * points, channels), torch.zeros(7, dtype=torch.long)
        table = torch.empty(clouds * points, k, dtype=torch.long)
        doubt = torch.empty(clouds * points, dtype=torch.bool)
        starts = points * torch.arange(clouds + 1)
        for listed, direct in ((None, True), (None, False), (few, True), (few[:1], True)):
            _launch(x.square().sum(-1), starts, points, table, doubt, k, loop, x, listed, direct)
"""
# Of numbers that are 1 Triton makes constants.
ONES = (1, 1, 1, 1, True), (3, 2, 1, 1, False), (1, 100, 5, 1, True)


@pytest.mark.parametrize(("sizes", "gpu"), [(ONES, 80), ([(16, 1024, 64, 10, True)], 90)])
def test_compiles(tmp_path, sizes, gpu):
    started = compile_for_gpu(tmp_path, gpu, CODE.format(sizes=list(sizes)))
    assert started == ["nearest"] * 4 * len(sizes)
