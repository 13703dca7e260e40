import pytest
from triton_kernels import compile_for_gpu

CODE = """
    from mgic_geo.graph.gpu.edge_max import edge_max
    from mgic_geo.graph.gpu.edge_norm import edge_norm
    from mgic_geo.graph.reduce import neighbor_max, neighbor_sum

    for nodes, edges, channels, groups in {sizes}:
        graph = random_graph(nodes, edges)
        uv = random(nodes, 2 * channels, dtype=torch.{dtype}).requires_grad_()
        one = torch.ones(channels, requires_grad=True)
        edge_max(uv, graph, groups).sum().backward()
        edge_norm(uv, one, one, graph, groups, 1e-5, 0.2)[0].sum().backward()
        neighbor_max(uv, graph)
        neighbor_sum(uv.detach(), graph)
"""
STARTED = [
    "gather_max", "edge_gradients", "gather_max", "join_moments", "norm_apply", "norm_sums", "edge_gradients",
    "gather_max", "gather_sum",
]  # fmt: skip
COMMON = (2000, 9000, 128, 2)
# Of numbers that are 1 Triton makes constants: channels, those of a group; nodes and tiles stay numbers.
ONES = (40, 90, 16, 1), (2, 2, 1, 1), (1, 2, 128, 1), (30, 90, 4, 4)


@pytest.mark.parametrize(
    ("dtype", "sizes", "gpu"),
    [("float32", [COMMON, *ONES], 80), ("bfloat16", [COMMON], 90), ("float64", [COMMON], 90)],
)
def test_compiles(tmp_path, dtype, sizes, gpu):
    started = compile_for_gpu(tmp_path, gpu, CODE.format(dtype=dtype, sizes=sizes))
    assert started == STARTED * len(sizes)


def test_graphs_of_any_size_share_what_was_compiled(tmp_path):
    """Where nodes, edges and tiles can be divided by 16, or are 1, too."""
    sizes = [(100, 901, 32, 2), (112, 901, 32, 2), (100, 912, 32, 2), (20, 61, 32, 2)]
    found = []
    for which in (sizes[:1], sizes):
        compile_for_gpu(tmp_path, 90, CODE.format(dtype="float32", sizes=which))
        found.append(len([*tmp_path.rglob("*.cubin")]))
    assert found[0] == found[1]
