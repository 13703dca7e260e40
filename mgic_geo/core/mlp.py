"""Multilayer perceptrons at a cost linear in their width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from mgic_geo.core.linear import MGICLinear

__all__ = ["MGICMLP"]


class MGICMLP(nn.Module):
    r"""Fully connected layers, each a :class:`MGICLinear` where that is the cheaper: linear in the width.

    Behind every layer but the last come normalisation, activation and dropout. A layer with a side no wider
    than ``coarse_size``, three coordinates say, or ten classes, costs little as it is: it stays a
    :class:`torch.nn.Linear`, and so does one that would not have fewer parameters.

    Args:
        widths: Features of the input, of each hidden layer and of the output; at least two numbers.
        group_size: Largest number of features in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        act: ``act()`` builds an activation; None leaves it out.
        norm: ``norm(width)`` builds a normalisation for (N, width); None leaves it out.
        dropout: Probability of dropping a hidden feature.
        bias: Give the layers a learned bias.
        **linear: Further arguments of :class:`MGICLinear`.

    Shapes:
        - input: (..., widths[0]), taken as rows;
        - output: (..., widths[-1]).

    Raises:
        ValueError: If there are fewer than two widths, on impossible sizes, or an input of another width.

    Example:
        >>> mlp = MGICMLP([64, 512, 512, 10], group_size=16, coarse_size=32)
    """

    def __init__(
        self,
        widths: Sequence[int],
        group_size: int = 32,
        coarse_size: int = 64,
        *,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        **linear: object,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(
                f"widths needs the features of the input and of every layer, got {list(widths)}; "
                "for one layer from 64 to 10 features write [64, 10]"
            )
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        for i, (width_in, width_out) in enumerate(pairwise(widths), start=1):
            layer: nn.Module = MGICLinear(width_in, width_out, group_size, coarse_size, bias, **linear)  # type: ignore[arg-type]
            narrow = min(width_in, width_out) <= coarse_size
            if narrow or sum(p.numel() for p in layer.parameters()) >= (width_in + bias) * width_out:
                layer = nn.Linear(width_in, width_out, bias)
            layers.append(layer)
            if i < len(widths) - 1:
                layers += [] if norm is None else [norm(width_out)]
                layers += [] if act is None else [act()]
                layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for layer in self.layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        if x.dim() == 0 or x.size(-1) != self.widths[0]:
            raise ValueError(
                f"expected widths[0]={self.widths[0]} features in the last dimension, "
                f"got shape {tuple(x.shape)}"
            )
        # As rows, for BatchNorm1d takes the second dimension of three for the channels.
        return self.layers(x.reshape(-1, self.widths[0])).reshape(*x.shape[:-1], self.widths[-1])

    def __repr__(self) -> str:
        layers = "".join(f"\n  {layer}" for layer in self.layers)
        return f"{type(self).__name__}({list(self.widths)},{layers}\n)"
