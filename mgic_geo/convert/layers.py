"""Single layers: dense convolutions and fully connected layers."""

from __future__ import annotations

import torch
from torch import nn
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from mgic_geo.convert.forms import Build, Sizes, gain_of, match_placement
from mgic_geo.core.linear import MGICLinear, start_levels_
from mgic_geo.image.mgic_conv import MGICConv2d

__all__ = ["is_layer", "layer_form"]

_CONVOLUTIONS = nn.modules.conv._ConvNd
_KNOWN = (nn.Conv2d, nn.Linear, PyGLinear)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer that the table lists: a convolution or a fully connected layer."""
    return isinstance(module, _CONVOLUTIONS | nn.Linear | PyGLinear)


def layer_form(layer: nn.Module) -> Build | str:
    """How to build the MGIC form of a convolution or fully connected layer, or why there is none.

    Only the classes themselves have one: a subclass has a forward of its own (weight standardisation,
    "SAME" padding, parametrisation), or stands where the weight is read and the layer not called.
    """
    if isinstance(layer, _CONVOLUTIONS) and layer.groups > 1:
        depthwise = layer.groups == layer.in_channels
        return "depth-wise" if depthwise else f"already grouped: {layer.groups} groups"
    if type(layer) not in _KNOWN:
        return _none_of(layer)
    more = {*layer._parameters, *layer._buffers, *layer._modules} - {"weight", "bias"}
    if more:
        return f"it holds {', '.join(sorted(more))}, which would be lost"
    return _conv_form(layer) if isinstance(layer, nn.Conv2d) else _linear_form(layer)  # type: ignore[arg-type]


def _none_of(layer: nn.Module) -> str:
    kind = type(layer)
    if base := next((base for base in _KNOWN if isinstance(layer, base)), None):
        return (
            f"no MGIC form of {kind.__module__}.{kind.__name__}, a {base.__name__} with a forward of its own"
        )
    return f"no MGIC form of {kind.__name__}"


def _conv_form(old: nn.Conv2d) -> Build:
    def build(sizes: Sizes) -> nn.Module | str:
        if reason := sizes.too_narrow(old.in_channels, old.out_channels):
            return reason
        new = MGICConv2d(
            old.in_channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]  # pairs, typed as tuples of any length
            old.stride,  # type: ignore[arg-type]
            old.padding,  # type: ignore[arg-type]
            old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
            padding_mode=old.padding_mode,
            **vars(sizes),
        )
        return _carry_over(new, old)

    return build


def _linear_form(old: nn.Linear | PyGLinear) -> Build:
    width_out, width_in = old.weight.shape

    def build(sizes: Sizes) -> nn.Module | str:
        if reason := sizes.too_narrow(width_in, width_out):
            return reason
        return _carry_over(MGICLinear(width_in, width_out, bias=old.bias is not None, **vars(sizes)), old)

    return build


@torch.no_grad()
def _carry_over(new: MGICConv2d | MGICLinear, old: nn.Module) -> nn.Module:
    """Keep the gain of the old weight, the old bias, which couples nothing, and what else a model may read.

    What the weight is frozen or not, the new ones are; the bias keeps its own.
    """
    match_placement(new, old).requires_grad_(old.weight.requires_grad)  # type: ignore[union-attr, arg-type]
    if new.bias is not None:
        new.bias.requires_grad_(old.bias.requires_grad)  # type: ignore[union-attr, arg-type]
    for name, value in vars(old).items():
        if not hasattr(new, name) and name[0] != "_" and isinstance(value, bool | int | float | str | tuple):
            setattr(new, name, value)
    if old.weight.device.type != "meta":  # type: ignore[union-attr]
        start_levels_(new.cycle, gain_of(old.weight))  # type: ignore[arg-type]
        if new.bias is not None:
            new.bias.copy_(old.bias)  # type: ignore[arg-type]
    return new
