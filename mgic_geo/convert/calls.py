"""Calling a PyG layer and its MGIC form alike, to see whether the form can stand where the layer stands."""

from __future__ import annotations

import contextlib
import copy
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch_geometric.nn import MessagePassing

from mgic_geo.graph.self_loops import forget_graphs

__all__ = ["Call", "mismatch", "shortened", "watch_calls"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments with which a layer is called."""


@contextlib.contextmanager
def watch_calls(model: nn.Module) -> Iterator[dict[str, list[Call]]]:
    """What message-passing layers, by name, are called with while the model, or a copy, runs in this context.

    One call of each form is kept, and no values are copied: shapes matter here, not what later layers that
    work in place leave in a tensor.
    """
    calls: dict[str, list[Call]] = defaultdict(list)
    seen: set[str] = set()

    def keep(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            leaves = [getattr(leaf, "shape", type(leaf)) for leaf in tree_leaves((args, kwargs))]
            form = f"{name} {len(args)} {[*kwargs]} {leaves}"
            if form not in seen:
                seen.add(form)
                calls[name].append((args, kwargs))

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, MessagePassing)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def mismatch(new: nn.Module, old: MessagePassing, width: int, calls: Iterable[Call] = ()) -> str:
    """Why ``new`` cannot stand where ``old`` stands; empty if it can, or if ``old`` itself does not run.

    Args:
        new: The MGIC form; it keeps its mode.
        old: The layer.
        width: Channels that it takes.
        calls: Arguments to call both with. Where there are none on which ``old`` runs, a few random nodes and
            edges, with what else its ``forward`` asks for by names that PyG uses.
    """
    like = next(new.parameters())
    if like.is_meta:
        return ""
    try:
        # A copy, for a call may change what it keeps; of the same parameters, for those may be large.
        old = copy.deepcopy(old, {id(p): p for p in old.parameters()}).eval()
    except (RuntimeError, TypeError):  # it keeps a tensor amid a graph, or a lock
        return ""
    training = new.training
    with torch.random.fork_rng([like.device.index] if like.is_cuda else []):
        try:
            new.eval()
            found = [_compared(new, old, call) for call in calls]
            found = [told for told in found if told is not None]
            if not found:
                tried = (_compared(new, old, call) for call in _random_calls(old, width, like))
                found = [next((told for told in tried if told is not None), "")]
        finally:
            new.train(training)
            forget_graphs(new)
    return next(filter(None, found), "")


def _compared(new: nn.Module, old: nn.Module, call: Call) -> str | None:
    """In what ``new`` falls short of ``old`` on one call; None if ``old`` does not run."""
    args, kwargs = call
    forget_graphs(old)
    forget_graphs(new)
    try:
        wanted = old(*args, **kwargs)
    except Exception:  # whatever a forward raises that misses its arguments
        return None
    try:
        given = new(*args, **kwargs)
    except Exception as error:
        return f"its MGIC form does not run where it does: {shortened(error)}"
    shapes = [tuple(getattr(out, "shape", ())) for out in (wanted, given)]
    return "" if shapes[0] == shapes[1] else f"it gives {shapes[0]}, its MGIC form {shapes[1]}"


def shortened(error: Exception) -> str:
    """What an error says, for a cell of a table."""
    return textwrap.shorten(str(error) or repr(error), 200, placeholder=" ...")


def _random_calls(old: nn.Module, width: int, like: Tensor) -> Iterator[Call]:
    """What a layer's ``forward`` requires, then with all that it may be given, as far as names tell."""
    nodes, edges = 16, 48

    def rows(count: int, *channels: int) -> Tensor:
        return torch.rand(count, *channels).to(like)

    graph = torch.stack([torch.randint(nodes, (edges,)), torch.arange(edges) % nodes]).to(like.device)
    ids = torch.zeros(edges, dtype=torch.long, device=like.device)
    dim = next((d for n in ("edge_dim", "dim") if isinstance(d := getattr(old, n, None), int)), width)
    values = {
        "x": rows(nodes, width), "x_0": rows(nodes, width), "pos": rows(nodes, 3), "normal": rows(nodes, 3),
        "edge_attr": rows(edges, dim), "edge_weight": rows(edges), "edge_type": ids, "batch": ids[:nodes],
        "hyperedge_weight": rows(nodes), "hyperedge_attr": rows(nodes, width),
        **{f"{kind}edge_index": graph for kind in ("", "pos_", "neg_", "hyper")},
    }  # fmt: skip
    taken = inspect.signature(old.forward).parameters.values()
    named = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required, optional = (
        [p.name for p in named if (p.default is p.empty) is mandatory] for mandatory in (True, False)
    )
    by_place = dict(zip(required, ("x", "edge_index"), strict=False))
    args = [values.get(name, values.get(by_place.get(name, ""))) for name in required]
    yield tuple(args), {}
    yield tuple(args), {name: values[name] for name in optional if name in values}
