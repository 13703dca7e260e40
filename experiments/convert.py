"""Convert known models by replace_convs and print, as Markdown, what each costs before and after.

Each converted model is also trained for a step, saved and loaded, and exported, unless --no-check. Images
are counted at 224×224; the checks run on smaller ones. A name is torchvision/... or timm/... with any
image classifier of those, or pyg/... with a model of torch_geometric.nn.models, 256 wide.

    python experiments/convert.py --models torchvision/resnet50 pyg/GCN
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mgic_geo import Conversion, replace_convs
from mgic_geo.extras import needs
from mgic_geo.text_table import markdown
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags
from mgic_geo.training.errors import UsageError, check_target, plain_errors, write_text

MODELS = (
    "torchvision/resnet18", "torchvision/resnet50", "torchvision/mobilenet_v3_large",
    "torchvision/efficientnet_b0", "torchvision/convnext_tiny", "timm/resnet26t", "timm/regnety_004",
    "pyg/GCN", "pyg/GraphSAGE", "pyg/GAT", "pyg/GIN", "pyg/PNA",
)  # fmt: skip
_FAILURES = (ValueError, TypeError, AssertionError, RuntimeError, OSError)
NODES, FEATURES, WIDTH, LAYERS, CLASSES = 300, 128, 256, 4, 10


def installed() -> tuple[str, ...]:
    """Those of ``MODELS`` that can be made here; timm is in no extra that trains."""
    return tuple(name for name in MODELS if find_spec("timm") or not name.startswith("timm/"))


@dataclass(kw_only=True)
class Config(Flags):
    """What to convert."""

    models: tuple[str, ...] = field(default_factory=installed)
    """Names of models; the default leaves out what needs timm where that is not installed."""
    group_size: int = 32
    """Largest number of channels in a group."""
    coarse_size: int = 64
    """Largest width of the coarsest, fully coupled level."""
    image_size: int = 224
    """Height and width of the images that are counted."""
    check: bool = True
    """Train a step, save, load and export each converted model."""
    check_size: int = 64
    """Height and width of the images of the checks."""
    layers: bool = False
    """Print the table of each model's layers, too."""
    init: Literal["project"] | None = None
    """project fits the layers to those they replace, which pays with trained weights only."""
    output: Path | None = None
    """Write the table to this file, too."""
    seed: int = 0
    """Decides weights and inputs."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(group_size=1, coarse_size=1, seed=0)
        found += self.at_least(image_size=32, check_size=32)
        if not self.models:
            found.append(f"--models is empty; give some of {', '.join(MODELS)}")
        return found


def build(name: str) -> nn.Module:
    """A model with random weights.

    Raises:
        UsageError: If there is no such model, or its library is not installed.
    """
    library, _, model = name.partition("/")
    try:
        if library == "torchvision":
            import torchvision

            # A segmenter's or detector's backbone would be downloaded.
            known = inspect.signature(torchvision.models.get_model_builder(model)).parameters
            bare = {"weights_backbone": None} if "weights_backbone" in known else {}
            return torchvision.models.get_model(model, weights=None, **bare)
        if library == "timm":
            needs("it", "dev", "timm")
            import timm

            return timm.create_model(model)
        if library == "pyg":
            from torch_geometric.nn import models

            options: dict[str, Any] = {}
            if model == "PNA":
                aggregators, scalers = ["mean", "min", "max", "std"], ["identity", "amplification"]
                options = {"aggregators": aggregators, "scalers": scalers, "deg": _degrees()}
            if model not in models.classes:
                raise ValueError(f"torch_geometric.nn.models has {', '.join(models.classes)}")
            return getattr(models, model)(FEATURES, WIDTH, LAYERS, CLASSES, **options)
    except (ImportError, AttributeError, *_FAILURES) as error:
        raise UsageError(f"--models {name}: {error}") from error
    raise UsageError(f"--models {name}: no such model; known are {', '.join(MODELS)}")


def _graph() -> Tensor:
    return torch.randint(NODES, (2, 8 * NODES), generator=torch.Generator().manual_seed(0))


def _degrees() -> Tensor:
    return torch.bincount(torch.bincount(_graph()[1], minlength=NODES))


def example(name: str, size: int, batch: int) -> tuple[Tensor, ...]:
    """Inputs of a model: images, or the nodes and edges of a graph."""
    if name.startswith("pyg/"):
        return torch.randn(NODES, FEATURES), _graph()
    return (torch.randn(batch, 3, size, size),)


def check(model: nn.Module, again: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Train ``model`` for a step, save and load it whole and into ``again``, and export it.

    Args:
        model: A converted model.
        again: The same conversion of the same model, built anew.
        inputs: Example inputs.

    Raises:
        RuntimeError: If one of these fails.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    outputs = model.train()(*inputs)
    # GoogLeNet and Inception give a named tuple while they train: logits, and those of their auxiliary heads.
    heads = [head for head in outputs if head is not None] if isinstance(outputs, tuple) else [outputs]
    targets = torch.arange(len(heads[0])) % CLASSES
    loss = torch.stack([nn.functional.cross_entropy(head, targets) for head in heads]).sum()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if not loss.isfinite() or without:
        raise RuntimeError(f"loss {loss.item()}, no finite gradient of {without}")
    optimizer.step()

    model.eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        expected = model(*inputs)
        torch.save(model, whole := Path(folder) / "model.pt")
        torch.save(model.state_dict(), state := Path(folder) / "state.pt")
        again.load_state_dict(torch.load(state), strict=True)
        forms: dict[str, Callable[..., Tensor]] = {
            "loaded whole": torch.load(whole, weights_only=False),
            "loaded from its state": again.eval(),
            "exported": torch.export.export(model, inputs).module(),
        }
        for what, run in forms.items():
            torch.testing.assert_close(run(*inputs), expected, rtol=1e-4, atol=1e-4, msg=f"{what}: differs")


def convert(name: str, config: Config) -> Conversion:
    """Convert and check one model."""
    torch.manual_seed(config.seed)
    model = build(name)
    inputs = example(name, config.image_size, 1)
    options: Any = {"group_size": config.group_size, "coarse_size": config.coarse_size, "seed": config.seed}
    with _naming(name, "--image-size", config.image_size):
        converted = replace_convs(model, inputs=inputs, init=config.init, **options)
    if config.check:
        again = replace_convs(model, **options)
        with _naming(name, "--check-size", config.check_size):
            check(copy.deepcopy(converted), again, example(name, config.check_size, 2))
    conversion = converted.conversion
    assert isinstance(conversion, Conversion)
    return conversion


@contextmanager
def _naming(name: str, flag: str, size: int) -> Iterator[None]:
    """Turn what a model fails with into a UsageError that names it, and its images' size: it may be why."""
    try:
        yield
    except _FAILURES as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0]
        at = "" if name.startswith("pyg/") else f" (at {flag} {size})"
        raise UsageError(f"--models {name}: {what}{at}") from error


def table(conversions: dict[str, Conversion]) -> str:
    """The conversions as Markdown."""
    head = ["model", "parameters M", "after", "saved", "multiply-adds M", "after", "saved"]
    head += ["replaced", "left"]
    lines = []
    for name, conversion in conversions.items():
        line = [f"`{name}`"]
        for before, after in (conversion.parameters, conversion.multiply_adds or (0, 0)):
            line += [_millions(before), _millions(after), f"{1 - after / max(before, 1):.0%}"]
        lines.append([*line, str(len(conversion.replaced)), str(len(conversion.left))])
    return markdown(head, lines, right="---:")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e8 else f"{count / 1e6:.3g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        check_target("--output", config.output)
        conversions = {}
        for name in config.models:
            conversions[name] = convert(name, config)
            if config.layers:
                print(f"### {name}\n\n{conversions[name].markdown()}\n")
        text = table(conversions)
        print(text)
        if config.output:
            write_text(config.output, text + "\n")


if __name__ == "__main__":
    main()
