"""The block of one level of a graph layer's channel hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from mgic_geo.core.norm_act import norm_act

__all__ = ["Factory", "GraphBlock", "Levels", "norm_factory"]

Factory = Callable[[int], nn.Module]

_NORMS: dict[str | None, Factory] = {
    "batch_norm": nn.BatchNorm1d,
    "layer_norm": nn.LayerNorm,
    None: lambda width: nn.Identity(),
}


@dataclass(frozen=True)
class Levels:
    """Features that a layer reads and never writes, restricted to the width of every level."""

    values: tuple[Tensor, ...]

    def at(self, width: int) -> Tensor:
        """Those of one level, told by its width: no two levels have the same."""
        (found,) = [value for value in self.values if value.size(-1) == width]
        return found


class GraphBlock(nn.Module):
    """The block of one level: x + act(norm(conv(x, graph))), or x + norm(act(conv(x, graph))).

    Args:
        conv: The layer, grouped or not.
        norm: Normalisation of its output.
        act: Activation.
        act_first: Activate before the normalisation.
        residual: Add the input.
    """

    def __init__(
        self,
        conv: nn.Module,
        norm: nn.Module,
        act: nn.Module,
        act_first: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.act, self.act_first, self.residual = conv, norm, act, act_first, residual

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        reset(self.conv)
        reset(self.norm)

    def forward(self, x: Tensor, source: Levels | None, *args: Any, **kwargs: Any) -> Tensor:
        """(N, width) to (N, width).

        Args:
            x: Features of the nodes that gather.
            source: Features of the nodes gathered from, if those are others.
            *args: Go to the layer, of :class:`Levels` this one's.
            **kwargs: Likewise.

        Raises:
            ValueError: If the layer returns more than features, or features of another shape.
        """

        def own(value: Any) -> Any:
            return value.at(x.size(-1)) if isinstance(value, Levels) else value

        inputs = x if source is None else (own(source), x)
        out = self.conv(inputs, *map(own, args), **{name: own(value) for name, value in kwargs.items()})
        if not isinstance(out, Tensor):
            raise ValueError(
                f"a layer's output takes the place of its input, so it must be features, got "
                f"{type(out).__name__}; leave out what asks for more, such as return_attention_weights"
            )
        if out.shape != x.shape:  # a sum would broadcast
            raise ValueError(
                f"a layer's output takes the place of its input, so both need one shape, got "
                f"{tuple(out.shape)} from {self.conv} for {tuple(x.shape)}; conv must build layers that give "
                "(nodes, width) features"
            )
        if not self.act_first:
            return norm_act(out, self.norm, self.act, x if self.residual else None)
        out = self.norm(self.act(out))
        return x + out if self.residual else out


def norm_factory(norm: str | Factory | None) -> Factory:
    """A factory ``norm(width)`` from its name.

    Raises:
        ValueError: On a name of none that sees one node at a time, a module, or anything else.
    """
    if callable(norm) and not isinstance(norm, nn.Module):
        return norm
    if norm is None or (isinstance(norm, str) and norm in _NORMS):
        return _NORMS[norm]
    if isinstance(norm, str):
        why = "PyG's others work on whole graphs, and a block is not told which node is in which graph"
    else:
        why = "every level has a width of its own, so give what builds one"
        why += f", the class: norm={type(norm).__name__}" if isinstance(norm, nn.Module) else ""
    raise ValueError(
        f"norm must be 'batch_norm', 'layer_norm', None or a factory norm(width), got {norm!r}; {why}"
    )
