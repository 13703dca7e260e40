"""The public surface: what README and users import."""

import inspect
import subprocess
import sys

import mgic_geo

NAMES = [
    "BasicBlock2d", "Bottleneck2d", "ChannelHierarchy", "Conversion", "EdgeConv", "GroupedLinear",
    "ImageCard", "InvertedResidual2d", "MGICBasicBlock2d", "MGICBlock", "MGICBottleneck2d", "MGICConv2d",
    "MGICDynamicEdgeConv", "MGICGAT", "MGICGCN", "MGICGIN", "MGICGraphConv",
    "MGICGraphSAGE", "MGICInvertedResidual2d", "MGICLinear", "MGICMLP", "ModelCard",
    "Prolongation", "Restriction", "complexity", "create_model", "export_onnx", "from_pretrained", "fuse",
    "grouped", "keep_memory", "knn", "knn_graph", "list_models", "list_pretrained", "load_weights",
    "replace_convs", "save_model", "save_weights", "scaling",
]  # fmt: skip


def test_names_are_there_and_documented():
    for name in NAMES:
        assert inspect.getdoc(getattr(mgic_geo, name)), name
    public = {n for n, v in vars(mgic_geo).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert public == set(NAMES)


def test_importing_prints_nothing_and_loads_nothing_optional():
    code = "import mgic_geo, sys; sys.stdout.write(' '.join(n for n in sys.modules if n.count('.') < 2))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    modules = run.stdout.split(" ")  # what importing printed would stand ahead of the first
    assert modules[0] == "sys"
    for heavy in (
        "lightning", "matplotlib", "h5py", "trimesh", "tyro", "torchvision", "timm", "torch_cluster",
        "onnx", "onnxruntime",
    ):  # fmt: skip
        assert heavy not in modules


def test_imports_run_one_way():
    """native and core know torch only; nothing knows training or datasets but the experiments, what is the
    paper's alone, and that part of the benchmark which measures these two."""
    import ast
    from pathlib import Path

    root = Path(mgic_geo.__file__).parent
    allowed = {
        "native": {"native"},
        "core": {"core", "native"},
        "graph": {"native", "core", "graph"},
        "image": {"native", "core", "image"},
        "convert": {"core", "graph", "image", "convert", "complexity", "text_table"},
        "models": {"core", "graph", "image", "models"},
        "benchmark": {
            "core",
            "graph",
            "image",
            "models",
            "benchmark",
            "complexity",
            "counting",
            "memory",
            "text_table",
            "timing",
        },
        "training": {
            "core",
            "graph",
            "image",
            "models",
            "training",
            "datasets",
            "complexity",
            "scaling",
            "extras",
            "files",
            "memory",
            "model_file",
            "text_table",
        },
        "paper": {"core", "extras", "models", "training", "datasets", "scaling", "model_file", "paper"},
    }
    measured = {"benchmark/loading.py": {"training", "datasets"}, "benchmark/caching.py": {"datasets"}}
    for package, known in allowed.items():
        for path in (root / package).rglob("*.py"):
            parts = known | measured.get(f"{package}/{path.name}", set())
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in names:
                    if name and name.startswith("mgic_geo."):
                        assert name.split(".")[1] in parts, f"{path.name} imports {name}"
                    if package in ("native", "core"):
                        assert not (name or "").startswith("torch_geometric"), f"{path.name} imports {name}"
