"""Exported programs run without this package and give what the models give."""

import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from mgic_geo import create_model, export_onnx, fuse
from mgic_geo.export import _difference, _nudged
from mgic_geo.models.mobilenetv3 import SMALL, mgic_mobilenetv3

POINTS = {"widths": (16, 32), "embedding": 16, "hidden": (16,), "k": 4, "coarse_size": 16}


def perturbed(model):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight, 0.5)  # some negative
    return model.eval()


@pytest.fixture(scope="module")
def point_model():
    torch.manual_seed(0)
    return perturbed(create_model("mgic_dgcnn", **POINTS))


def clouds():
    """Random ones, with points twice, padded with one point, far from the origin, in two lumps."""
    x = torch.randn(5, 40, 3)
    x[1, 20:] = x[1, :20]
    x[2, 25:] = x[2, 0]
    x[3] += 30
    x[4, :20] += 10
    return x


def test_a_program_with_the_graph_inside_needs_no_package(point_model, tmp_path):
    torch.manual_seed(1)
    batch, points = torch.export.Dim("batch"), torch.export.Dim("points", min=10)
    program = torch.export.export(
        point_model, (torch.randn(2, 30, 3),), dynamic_shapes=({0: batch, 1: points},)
    )
    assert not any("mgic_geo" in str(node.target) for node in program.graph.nodes)
    for x in (clouds(), torch.randn(1, 55, 3)):
        torch.testing.assert_close(program.module()(x), point_model(x), atol=1e-5, rtol=1e-5)
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save((clouds_ := clouds(), point_model(clouds_)), tmp_path / "pair.pt")
    code = (
        "import sys, torch; sys.modules['mgic_geo'] = sys.modules['torch_geometric'] = None\n"
        f"program = torch.export.load({str(tmp_path / 'model.pt2')!r})\n"
        f"x, y = torch.load({str(tmp_path / 'pair.pt')!r})\n"
        "torch.testing.assert_close(program.module()(x), y, atol=1e-5, rtol=1e-5)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_programs_of_pyg_layers():
    torch.manual_seed(0)
    model = create_model("mgic_dgcnn", **POINTS, wrapped="SAGEConv").eval()
    program = torch.export.export(model, (torch.randn(2, 30, 3),))
    assert not any("mgic_geo" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x := torch.randn(2, 30, 3)), model(x), atol=1e-5, rtol=1e-5)


def test_onnx_of_point_clouds(point_model, tmp_path):
    torch.manual_seed(1)
    file = export_onnx(
        fuse(point_model), torch.randn(2, 30, 3), tmp_path / "m.onnx", dynamic={0: "batch", 1: "points"}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    graph = onnx.load(file)
    assert {node.domain for node in graph.graph.node} == {""}  # onnx's own operators only
    session = onnxruntime.InferenceSession(str(file))
    for x in (clouds(), torch.randn(3, 50, 3), torch.randn(1, 12, 3)):
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), point_model(x).detach(), atol=1e-4, rtol=1e-4)


def images():
    rows = (SMALL[0], SMALL[8])  # squeeze-excite, strides, a cycle of two levels
    return {
        "resnet": create_model("mgic_resnet56_g8_c16", depths=(1, 1, 1)),
        "mobilenet": mgic_mobilenetv3(rows, 64, 10, group_size=16, coarse_size=48),
    }


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_onnx_of_images(name, tmp_path):
    torch.manual_seed(0)
    model = perturbed(images()[name])
    file = export_onnx(model, torch.randn(2, 3, 32, 32), tmp_path / "m.onnx")
    assert model.eval() is model
    session = onnxruntime.InferenceSession(str(file))
    x = torch.randn(5, 3, 32, 32)
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), model(x).detach(), atol=1e-4, rtol=1e-4)


class OnGPU(nn.Module):
    """A product of factors rounded to TF32, as on a GPU, until it is moved to the CPU."""

    def __init__(self):
        super().__init__()
        self.weight, self.moved = nn.Parameter(torch.randn(64, 64)), False

    def _apply(self, fn, recurse=True):
        self.moved = True
        return super()._apply(fn, recurse)

    def forward(self, x):
        exact = self.moved or torch.compiler.is_exporting()  # the program has no rounding
        return x @ self.weight if exact else tf32(x) @ tf32(self.weight)


def tf32(x):
    """Ten bits of mantissa."""
    return ((x.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)


def test_a_model_is_judged_on_the_cpu(tmp_path):
    torch.manual_seed(0)
    model, x = OnGPU(), torch.randn(8, 64)
    rough = model(x)
    file = export_onnx(model, x, tmp_path / "m.onnx")
    assert torch.equal(model(x), rough)  # the model stays where it is
    (out,) = onnxruntime.InferenceSession(str(file)).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), x @ model.weight.detach())
    assert (rough - x @ model.weight).abs().max() > 1e-3


class Wrong(nn.Module):
    """Gives one thing to those who trace and another to those who run."""

    def forward(self, x):
        return x + 1 if torch.compiler.is_exporting() else x


def test_what_differs_is_refused_and_the_old_file_kept(tmp_path):
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(RuntimeError, match=r"\[\(2, 3\)\] differ from the model's by up to 1e\+04 times"):
        export_onnx(Wrong(), torch.zeros(2, 3), tmp_path / "m.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.onnx", "old")]


class Gives(nn.Module):
    """Outputs of any form, and with ``wrong`` others to those who trace."""

    def __init__(self, form, wrong=False):
        super().__init__()
        self.form, self.wrong = form, wrong

    def forward(self, x):
        return self.form(x + 1 if self.wrong and torch.compiler.is_exporting() else x)


FORMS = {
    "scalar": lambda x: x.sum(),
    "dictionary": lambda x: {"b": 2 * x, "a": x.sum()},
    "nested": lambda x: [x.exp(), (x + 1, {"positive": x > 0.5})],
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_numbers_and_outputs_of_any_form(form, tmp_path):
    torch.manual_seed(0)
    assert export_onnx(Gives(FORMS[form]), torch.rand(4), tmp_path / "m.onnx").exists()


def test_outputs_of_any_form_are_checked(tmp_path):
    with pytest.raises(RuntimeError, match=r"\[\(4,\)\] differ from the model's by up to"):
        export_onnx(Gives(FORMS["dictionary"], wrong=True), torch.zeros(4), tmp_path / "m.onnx")


def test_scalars_may_be_inputs(tmp_path):
    file = export_onnx(Gives(lambda x: 2 * x), torch.tensor(3.0), tmp_path / "m.onnx", dynamic={})
    assert onnxruntime.InferenceSession(str(file)).run(None, {"x": torch.tensor(4.0).numpy()})[0] == 8


def test_what_is_no_tensor_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"must be a tensor or a tuple of tensors, got str in it"):
        export_onnx(nn.Identity(), {"x": torch.zeros(2)}, tmp_path / "m.onnx")
    with pytest.raises(TypeError, match=r"must be tensors, .* got NoneType in them; wrap the model"):
        export_onnx(Gives(lambda x: (x, None)), torch.zeros(2), tmp_path / "m.onnx")
    assert not [*tmp_path.iterdir()]


def test_a_sample_may_be_that_of_an_input_that_differs_by_rounding():
    found = [torch.tensor([[1.0, 2.0], [3.0, 4.0]])]
    off = torch.tensor([[1.0, 2.0], [3.0, 4.1]])
    far = pytest.approx(0.1 / (1e-4 * 5.1), rel=1e-3)
    assert _difference(found, found).tolist() == [0, 0]
    assert _difference(found, [off]).tolist() == [0, far]
    assert _difference(found, [off[:, :1]]).tolist() == [torch.inf] * 2
    assert _difference(found, [found[0] * torch.nan]).tolist() == [torch.inf] * 2
    loss = torch.tensor(4.0)
    assert _difference([*found, loss], [*found, loss + 0.1]).tolist() == [far] * 2
    assert _difference([loss], [loss + 0.1]).tolist() == [far]
    flags = torch.tensor([True, False])
    assert _difference([flags], [~flags]).min() > 1e3
    x = torch.rand(1000)
    moved = (_nudged(x, torch.Generator().manual_seed(0)) - x).abs()
    assert 0 < moved.max() <= 2 * torch.finfo(x.dtype).eps
    assert torch.equal(_nudged(table := torch.arange(3), torch.Generator()), table)


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"axis 0 \(batch\) is to vary, .* at least 2 there, got shape \(1, 3"
    ):
        export_onnx(nn.Linear(3, 3), torch.zeros(1, 3), tmp_path / "m.onnx")
    monkeypatch.setattr("mgic_geo.extras.find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(ImportError, match=r"needs onnx; install the extra: pip install 'mgic-geo\[onnx\]'"):
        export_onnx(nn.Linear(3, 3), torch.zeros(2, 3), tmp_path / "m.onnx")
