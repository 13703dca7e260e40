"""Write docs/layers.md, which path serves which layer: ``python docs/make_layers.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch_geometric
from torch import nn

from mgic_geo.benchmark.pyg_layers import layer_classes, reason_against
from mgic_geo.graph.grouped.build import networks_of, parameters_of
from mgic_geo.graph.grouped.fast import FAST, Rule

_HEAD = """# Layers in groups

Written by `python docs/make_layers.py` from the message-passing layers of PyG {version}.

`grouped(conv, groups)(in_channels, out_channels, ...)`, and so every level of `MGICGraphConv`, equals small
layers side by side: group g of the output depends on group g of the input, and on the graph, positions and
edge features. On the *fast* path one layer of full width does this, with one grouped product a linear map and
one propagation; on the *general* path there is a small layer for every group. Both start alike and give the
same.

A fast layer falls back to the general path where its options let groups mix or share: with other values than
those listed, an aggregation or an activation that is not known to treat channels one by one, or a learned
number that is as long as a small layer's (`train_eps`, `learn_t`, ...). "Built" says what is made from the
two widths where the layer is not called as `conv(in_channels, out_channels)`. Layers that need a compiled
package still do. In the place of EdgeConv `MGICGraphConv` runs this package's own, with one linear map,
computed per node.

| layer | path | fast only with | built |
|---|---|---|---|
"""


def table() -> str:
    """The page as Markdown, with a row for every layer of the installed PyG."""
    rows = [_HEAD.format(version=torch_geometric.__version__)]
    for conv in sorted(layer_classes(), key=lambda layer: layer.__name__.lower()):
        reason = reason_against(conv)
        path = f"none: {reason}" if reason else "fast" if conv in FAST else "general"
        rows.append(f"| {conv.__name__} | {path} | {_condition(FAST.get(conv, Rule()))} | {_built(conv)} |\n")
    return "".join(rows)


def _condition(rule: Rule) -> str:
    return ", ".join(
        " or ".join(f"`{name}={value!r}`" for value in allowed) for name, allowed in rule.only.items()
    )


def _built(conv: type[nn.Module]) -> str:
    """How the layer comes from two widths."""
    given, networks, notes = parameters_of(conv), networks_of(conv), []
    if networks is not None:
        sizes = dict.fromkeys(parameters_of(networks), 2)
        notes.append(", ".join(f"`{name}`" for name in networks(**sizes)))
    if "heads" in given and "concat" in given:
        notes.append("`out_channels` counts all heads")
    if "out_channels" not in given and networks is None:
        notes.append("keeps its width")
    return "; ".join(notes)


def main() -> None:
    """Write the page, to docs/layers.md of a checkout unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("layers.md"))
    parser.parse_args().output.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
