"""Models as ONNX files that onnxruntime runs where neither torch nor this package is installed."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mgic_geo.extras import needs
from mgic_geo.files import replacing

__all__ = ["export_onnx"]

_TOLERANCE = 1e-4
_NUDGES = 16


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
    has to give the model's outputs within 1e-4 (absolute and relative), or those for an input that differs by
    rounding: where two neighbours are equally far within rounding, either may be taken. k-NN and neighbour
    reductions become plain operators; export ``fuse(model)`` for fewer.

    Args:
        model: The model, on any device; a copy is exported, and checked, on the CPU. Its output is a tensor,
            or tuples, lists and dictionaries of tensors, which the file gives one after the other.
        example_inputs: One input or a tuple of them, as ``model`` takes them; shapes that vary need at least
            2 in the example.
        path: The file; it appears complete or not at all.
        dynamic: Names of the axes of all inputs that may vary, ``{0: "batch"}`` by default; clouds of any
            number of points take ``{0: "batch", 1: "points"}``, none ``{}``.
        **options: Go to :func:`torch.onnx.export`, ``opset_version`` for example.

    Returns:
        The path.

    Raises:
        TypeError: If an example or an output is no tensor.
        ImportError: If onnx or onnxscript is not installed.
        ValueError: If a varying axis is shorter than 2 in the example.
        RuntimeError: If onnxruntime's outputs are not the model's; no file is written.

    Example:
        >>> model = create_model("mgic_dgcnn")  # doctest: +SKIP
        >>> export_onnx(fuse(model), torch.rand(2, 1024, 3), "model.onnx")  # doctest: +SKIP
    """
    needs("ONNX export", "onnx", "onnx", "onnxscript")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    for x in inputs:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"example_inputs must be a tensor or a tuple of tensors, got {type(x).__name__} in it"
            )
    dynamic = {0: "batch"} if dynamic is None else dict(dynamic)
    for axis, name in dynamic.items():
        for x in inputs:
            if x.dim() <= axis or x.size(axis) < 2:
                raise ValueError(
                    f"axis {axis} ({name}) is to vary, so the example needs at least 2 there, got shape "
                    f"{tuple(x.shape)}; torch would take the 1 for a constant"
                )
    # On the CPU: there onnxruntime runs, and on a GPU torch's convolutions round to TF32, which 1e-4 forbids.
    model = copy.deepcopy(getattr(model, "_orig_mod", model)).cpu().eval()
    inputs = tuple(x.cpu() for x in inputs)
    with torch.no_grad():
        _outputs(model, inputs)  # that of a bad kind is told before the work
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
            if find_spec("onnxruntime") is not None:
                _check(model, inputs, temporary, varies=0 in dynamic)
    return Path(path)


def _check(model: nn.Module, inputs: tuple[Tensor, ...], file: Path, varies: bool) -> None:
    """Raise ``RuntimeError`` unless onnxruntime gives what ``model`` gives, on a larger batch, too.

    Where two features are equally far within rounding, a graph of nearest neighbours may turn out either way,
    and an output jump. Such a sample has to be what the model gives for inputs that differ by rounding.
    """
    import onnxruntime  # type: ignore[import-not-found]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    larger = tuple(torch.cat([x, x[:1].flip(max(0, x.dim() - 2))]) for x in inputs) if varies else inputs
    for batch in (inputs, larger) if varies else (inputs,):
        found = session.run(None, {n: x.numpy() for n, x in zip(names, batch, strict=True)})
        outputs = [torch.as_tensor(out) for out in found]
        worst = _difference(outputs, _outputs(model, batch))
        generator = torch.Generator().manual_seed(0)
        for _ in range(_NUDGES if bool((worst > 1).any()) else 0):
            nudged = _outputs(model, tuple(_nudged(x, generator) for x in batch))
            worst = torch.minimum(worst, _difference(outputs, nudged))
        if bool((worst > 1).any()):
            raise RuntimeError(
                f"onnxruntime's outputs for inputs {[tuple(x.shape) for x in batch]} differ from the model's "
                f"by up to {float(worst.max()):.3g} times what is allowed, {_TOLERANCE} absolute and relative"
            )


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors of the model's output, in the order of the file's.

    Raises:
        TypeError: If there is something else in it.
    """
    outputs = tree_leaves(model(*inputs))
    for out in outputs:
        if not isinstance(out, Tensor):
            raise TypeError(
                f"the outputs of a model that is exported must be tensors, or tuples, lists and dictionaries "
                f"of them, got {type(out).__name__} in them; wrap the model in one that returns the tensors"
            )
    return outputs


def _difference(found: list[Tensor], expected: list[Tensor]) -> Tensor:
    """The largest difference of each sample, in units of what is allowed; infinite if shapes differ.

    Samples are the rows of the first output. One of another length, a loss say, counts for all samples.
    """
    samples = found[0].size(0) if found[0].dim() else 1
    worst = torch.zeros(samples)
    for out, want in zip(found, expected, strict=True):
        if out.shape != want.shape:
            return torch.full_like(worst, torch.inf)
        if out.numel():
            out, want = out.double(), want.double()
            units = ((out - want).abs() / (_TOLERANCE + _TOLERANCE * want.abs())).nan_to_num(torch.inf)
            rows = samples if out.dim() and out.size(0) == samples else 1
            worst = torch.maximum(worst, units.reshape(rows, -1).amax(1).float())
    return worst


def _nudged(x: Tensor, generator: torch.Generator) -> Tensor:
    """``x`` with values moved by no more than rounding."""
    if not x.is_floating_point():
        return x
    steps = torch.randint(-1, 2, x.shape, generator=generator).to(x)
    return x * (1 + torch.finfo(x.dtype).eps * steps)
