"""What the image networks share at their ends: classifiers, and feature maps instead of them."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FeatureMaps", "linear_head"]


def linear_head(features: int, num_classes: int) -> nn.Module:
    """A linear classifier, or the identity for 0 classes.

    Raises:
        ValueError: On a negative number of classes.
    """
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(features, num_classes)
    nn.init.normal_(head.weight, 0.0, 0.01)
    nn.init.zeros_(head.bias)
    return head


class FeatureMaps(nn.Module):
    """An image network without its classifier; gives the feature maps of all stages.

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
