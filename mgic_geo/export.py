"""Models as ONNX files that onnxruntime runs where neither torch nor this package is installed."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.files import replacing

__all__ = ["export_onnx"]

_TOLERANCE = 1e-4


def export_onnx(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    path: str | os.PathLike[str],
    *,
    dynamic: Mapping[int, str] | None = None,
    **options: Any,
) -> Path:
    """Write ``model`` in evaluation mode, k-NN graphs inside, to an ONNX file, and see that it runs right.

    Where onnxruntime is installed the file is run on the example and on one more batch of another size, and
    has to give the model's outputs within 1e-4 (absolute and relative). k-NN and neighbour reductions become
    plain operators; equally near points may be taken in another order than torch takes them. Export
    ``fuse(model)`` for fewer operators.

    Args:
        model: The model; a copy is exported.
        example_inputs: One input or a tuple of them, as ``model`` takes them; shapes that vary need at least
            2 in the example.
        path: The file; it appears complete or not at all.
        dynamic: Names of the axes of all inputs that may vary, ``{0: "batch"}`` by default; clouds of any
            number of points take ``{0: "batch", 1: "points"}``, none ``{}``.
        **options: Go to :func:`torch.onnx.export`, ``opset_version`` for example.

    Returns:
        The path.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        ValueError: If a varying axis is shorter than 2 in the example.
        RuntimeError: If onnxruntime's outputs are not the model's; no file is written.

    Example:
        >>> model = create_model("mgic_dgcnn")  # doctest: +SKIP
        >>> export_onnx(fuse(model), torch.rand(2, 1024, 3), "model.onnx")  # doctest: +SKIP
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"ONNX export needs {package}; install the extra: pip install 'mgic-geo[onnx]'")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    dynamic = {0: "batch"} if dynamic is None else dict(dynamic)
    for axis, name in dynamic.items():
        for x in inputs:
            if x.dim() <= axis or x.size(axis) < 2:
                raise ValueError(
                    f"axis {axis} ({name}) is to vary, so the example needs at least 2 there, got shape "
                    f"{tuple(x.shape)}; torch would take the 1 for a constant"
                )
    model = copy.deepcopy(getattr(model, "_orig_mod", model)).eval()
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            inputs,
            dynamo=True,
            dynamic_shapes=tuple(dict(dynamic) for _ in inputs) if dynamic else None,
            external_data=False,
            verbose=False,
            **options,
        )
        assert program is not None
        with replacing(Path(path)) as temporary:
            program.save(temporary)
            if importlib.util.find_spec("onnxruntime") is not None:
                _check(model, inputs, temporary, varies=0 in dynamic)
    return Path(path)


def _check(model: nn.Module, inputs: tuple[Tensor, ...], file: Path, varies: bool) -> None:
    """Raise ``RuntimeError`` unless onnxruntime gives what ``model`` gives, on a larger batch, too."""
    import onnxruntime  # type: ignore[import-not-found]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    larger = tuple(torch.cat([x, x[:1].flip(-2)]) for x in inputs)
    for batch in (inputs, larger) if varies else (inputs,):
        expected = model(*batch)
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        found = session.run(None, {n: x.cpu().numpy() for n, x in zip(names, batch, strict=True)})
        for out, want in zip(found, expected, strict=True):
            out = torch.from_numpy(out).to(want)
            if out.shape != want.shape or not torch.allclose(out, want, _TOLERANCE, _TOLERANCE):
                worst = f"by up to {float((out - want).abs().max()):.3g}" if out.shape == want.shape else ""
                raise RuntimeError(
                    f"onnxruntime gives {tuple(out.shape)} for inputs {[tuple(x.shape) for x in batch]} that "
                    f"differ from the model's {tuple(want.shape)} {worst}; more than {_TOLERANCE} is refused"
                )
