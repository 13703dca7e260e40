"""Which part of a grouped layer's state belongs to which group, told from shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["join_states", "separable", "split_state"]

State = Mapping[str, Tensor]


def separable(layer: nn.Module, small: nn.Module, groups: int) -> bool:
    """Whether ``layer`` holds ``groups`` times the state of ``small``, side by side.

    Every tensor is that of the small layer, but for one axis that is ``groups`` times as long; buffers may
    also be equal (a constant, say). A *parameter* that is no longer than the small layer's would be shared by
    all groups, so that the layer would not equal small layers with weights of their own.
    """
    state, part = layer.state_dict(), small.state_dict()
    learned = {name for name, _ in layer.named_parameters(remove_duplicate=False)}
    if state.keys() != part.keys():
        return False
    for name, value in state.items():
        if value.shape == part[name].shape:
            if name in learned:
                return False
        elif _grown_axis(value.shape, part[name].shape, groups) is None:
            return False
    return True


def split_state(state: State, small: State, groups: int) -> list[dict[str, Tensor]]:
    """The state of each group; ``small`` is one small layer's, of which only the shapes count.

    Works on whatever has the shapes of a state, gradients for example. What is None or missing stays out.
    """
    parts: list[dict[str, Tensor]] = [{} for _ in range(groups)]
    for name, value in state.items():
        axis = _grown_axis(value.shape, small[name].shape, groups)
        pieces = [value] * groups if axis is None else value.chunk(groups, axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece
    return parts


def join_states(states: Sequence[State], like: State) -> dict[str, Tensor]:
    """The inverse of :func:`split_state`: the state with the shapes of ``like``."""
    joined = {}
    for name, value in like.items():
        pieces = [state[name] for state in states]
        axis = _grown_axis(value.shape, pieces[0].shape, len(pieces))
        joined[name] = pieces[0] if axis is None else torch.cat(pieces, axis)
    return joined


def _grown_axis(shape: Sequence[int], small: Sequence[int], groups: int) -> int | None:
    """The one axis along which ``shape`` is ``groups`` times as long as ``small``, else None."""
    if len(shape) != len(small):
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(shape, small, strict=True)) if a != b]
    return grown[0] if len(grown) == 1 and shape[grown[0]] == groups * small[grown[0]] else None
