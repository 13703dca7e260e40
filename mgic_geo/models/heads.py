"""What the image networks share at their ends: classifiers, and feature maps instead of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["FeatureMaps", "linear_head", "placement"]


def linear_head(features: int, num_classes: int, like: nn.Module) -> nn.Module:
    """A linear classifier on the device and with the number type of ``like``; the identity for 0 classes.

    Raises:
        ValueError: On a negative number of classes.
    """
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(features, num_classes, **placement(like))
    nn.init.normal_(head.weight, 0.0, 0.01)
    nn.init.zeros_(head.bias)
    return head


def placement(like: nn.Module) -> dict[str, Any]:
    """The device and number type of a network, as arguments of what joins it."""
    first = next(like.parameters())
    return {"device": first.device, "dtype": first.dtype}


class FeatureMaps(nn.Module):
    """An image network without its classifier; gives the feature maps of all stages.

    Weights of a whole network load into :attr:`network`: ``load_weights(maps.network, path, strict=False)``.

    Args:
        network: A network with ``forward_stages``, ``stage_channels``, ``stage_strides`` and
            ``reset_classifier``; its classifier is removed.

    Shapes:
        - input: (B, C, H, W);
        - output: a list of (B, ``channels[i]``, H / ``strides[i]``, W / ``strides[i]``).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.reset_classifier(0)  # type: ignore[operator]
        self.network = network
        self.channels: tuple[int, ...] = network.stage_channels  # type: ignore[assignment]
        self.strides: tuple[int, ...] = network.stage_strides  # type: ignore[assignment]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        return self.network.forward_stages(x)  # type: ignore[operator]
