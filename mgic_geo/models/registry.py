"""Models by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from mgic_geo.models import mobilenetv3 as mbv3
from mgic_geo.models import resnet
from mgic_geo.models.dgcnn import DGCNN
from mgic_geo.models.heads import FeatureMaps
from mgic_geo.models.lraspp import lraspp

__all__ = ["create_model", "list_models"]

_large, _small = mbv3.mgic_mobilenetv3_large, mbv3.mgic_mobilenetv3_small

# A name that ends in sizes or a width is a row of the paper's tables: its settings keep to the row's
# parameters and multiply-adds. experiments/tables.py says what they change from the paper's words, and why.
# A name without follows the paper's words, and takes sizes as arguments.
_MODELS: dict[str, Callable[..., nn.Module]] = {
    "dgcnn": partial(DGCNN, conv="edge"),
    "mgic_dgcnn": partial(DGCNN, conv="mgic"),
    "resnet56": resnet.resnet56,
    "mgic_resnet56": resnet.mgic_resnet56,
    "mgic_resnet56_g8_c16": partial(
        resnet.mgic_resnet56, group_size=8, coarse_size=16, depths=(4, 8, 11), min_levels=0
    ),
    "mgic_resnet56_g16_c16": partial(resnet.mgic_resnet56, group_size=16, coarse_size=16, depths=(2, 8, 10)),
    "mgic_resnet56_g16_c32": partial(resnet.mgic_resnet56, group_size=16, coarse_size=32, depths=(4, 8, 9)),
    "mgic_resnet56_g16_c64": partial(resnet.mgic_resnet56, group_size=16, coarse_size=64, depths=(6, 8, 10)),
    "resnet50": resnet.resnet50,
    "mgic_resnet50": resnet.mgic_resnet50,
    "mgic_resnet50_g16_c64": partial(resnet.mgic_resnet50, group_size=16, depths=(1, 3, 6, 3)),
    "mgic_resnet50_g32_c64": partial(resnet.mgic_resnet50, group_size=32, depths=(1, 3, 6, 3)),
    "mgic_resnet50_g64_c64": partial(resnet.mgic_resnet50, group_size=64, depths=(1, 2, 6, 3)),
    "mobilenetv3_large": mbv3.mobilenetv3_large,
    "mobilenetv3_small": mbv3.mobilenetv3_small,
    "mgic_mobilenetv3_large": _large,
    "mgic_mobilenetv3_small": _small,
    "mgic_mobilenetv3_large_060": partial(_large, width=0.6, skip=(5, 8, 9), expansion=0.6, hidden=1940),
    "mgic_mobilenetv3_large_100": partial(_large, width=1.0, skip=(5, 8, 9), hidden=1760),
    "mgic_mobilenetv3_large_120": partial(_large, width=1.2, hidden=1720),
    "lraspp_mobilenetv3_large": partial(lraspp, mbv3.mobilenetv3_large),
    "lraspp_mobilenetv3_small": partial(lraspp, mbv3.mobilenetv3_small),
    "lraspp_mgic_mobilenetv3_large": partial(lraspp, _large, min_levels=1, tail_squeeze=True),
    "lraspp_mgic_mobilenetv3_small": partial(lraspp, _small),
    # The row above has a little more parameters than the plain network, in the paper as here; this has fewer.
    "lraspp_mgic_mobilenetv3_small_slim": partial(lraspp, _small, expansion=0.97),
}


def create_model(name: str, *, features_only: bool = False, **kwargs: Any) -> nn.Module:
    """Build a model by its name.

    Args:
        name: One of :func:`list_models`.
        features_only: Give an image network's feature maps at all resolutions, a list, finest first, in
            place of logits; the result's ``channels`` and ``strides`` describe them.
        **kwargs: Arguments of the model, for example ``num_classes``. All models but segmenters take 0
            classes for pooled features, and all can ``reset_classifier(num_classes)`` later.

    Returns:
        The model, freshly initialised.

    Raises:
        ValueError: If the name is unknown (the nearest ones are suggested), or the model has no feature maps.

    Example:
        >>> model = create_model("mgic_dgcnn", num_classes=10, group_size=16, coarse_size=32)
        >>> create_model("mgic_resnet56_g8_c16", features_only=True).channels
        (16, 32, 64)
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(list_models())}"
        raise ValueError(f"no model is called {name!r}; {hint}")
    model = _MODELS[name](**kwargs)
    if not features_only:
        return model
    if not hasattr(model, "forward_stages"):
        raise ValueError(f"{name!r} has no feature maps; features_only is for ResNets and MobileNets")
    return FeatureMaps(model)


def list_models() -> list[str]:
    """Names that :func:`create_model` knows, sorted."""
    return sorted(_MODELS)
