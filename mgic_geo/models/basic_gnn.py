"""PyG's ready-made GCN, GraphSAGE, GAT and GIN with their hidden layers in a channel hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.nn.inits import reset
from torch_geometric.nn.models.basic_gnn import BasicGNN

from mgic_geo.graph import MGICGraphConv
from mgic_geo.graph.activation import Act, resolve_act
from mgic_geo.graph.graph_block import norm_factory
from mgic_geo.graph.self_loops import self_loops_of
from mgic_geo.models.layerwise import infer
from mgic_geo.models.trim_hops import TrimHops

__all__ = ["MGICGAT", "MGICGCN", "MGICGIN", "MGICGraphSAGE"]


class InputLayer(pyg.MessagePassing):
    """A dense layer on raw features: act(norm(conv(x, graph))).

    Args:
        conv: A PyG layer.
        in_channels: Width of its input, or a pair of them.
        out_channels: Width of its output.
        norm: Normalisation of its output.
        act: Activation, or None.
        act_first: Activate before the normalisation.
    """

    add_self_loops = self_loops_of(lambda self: [self.conv])

    def __init__(
        self,
        conv: nn.Module,
        in_channels: int | tuple[int, int],
        out_channels: int,
        norm: nn.Module,
        act: Act = None,
        act_first: bool = False,
    ) -> None:
        super().__init__(aggr=None)  # to_hetero tells by this class that it needs edges
        self.in_channels, self.out_channels = in_channels, out_channels
        self.conv, self.norm, self.act, self.act_first = conv, norm, resolve_act(act), act_first

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        reset(self.conv)
        reset(self.norm)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        """(N, in_channels) or a pair to (N, out_channels); what follows is the layer's."""
        out = self.conv(x, *args, **kwargs)
        return self.norm(self.act(out)) if self.act_first else self.act(self.norm(out))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conv})"


class _MGICModel(BasicGNN):
    """What the four models share; each names the layer of its levels."""

    conv_class: ClassVar[Callable[..., nn.Module]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.act = None  # of the layers' own blocks; none follows a residual
        self._trim = TrimHops([self._hops(conv) for conv in self.convs])

    def init_conv(  # type: ignore[override]
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        group_size: int = 16,
        coarse_size: int = 32,
        min_levels: int = 0,
        block_norm: str | Callable[[int], nn.Module] | None = "batch_norm",
        transfer_init: str = "signed",
        **kwargs: Any,
    ) -> pyg.MessagePassing:
        """One layer: MGIC between hidden widths, else PyG's own."""
        if getattr(self, "_is_conv_to_out", False):
            return super().init_conv(in_channels, out_channels, **kwargs)
        if not self.convs:
            dense = super().init_conv(in_channels, out_channels, **kwargs)
            norm = norm_factory(block_norm)(out_channels)
            return InputLayer(dense, in_channels, out_channels, norm, self.act, self.act_first)
        return MGICGraphConv(
            in_channels[0] if isinstance(in_channels, tuple) else in_channels,  # hidden widths are equal
            out_channels,
            conv=self._conv_of(kwargs),
            group_size=group_size,
            coarse_size=coarse_size,
            act=self.act,
            norm=block_norm,
            min_levels=min_levels,
            transfer_init=transfer_init,
            correction_norm=None,
            act_first=self.act_first,
            **kwargs,
        )

    def _conv_of(self, kwargs: dict[str, Any]) -> Callable[..., nn.Module]:
        """The layer of the levels; takes out of ``kwargs`` what is not for it."""
        return self.conv_class

    @staticmethod
    def _hops(conv: nn.Module) -> int:
        return conv.num_hops if isinstance(conv, MGICGraphConv) else 1

    @property
    def num_hops(self) -> int:
        """How many edges away an output still looks, the sum over layers and their levels."""
        return sum(self._hops(conv) for conv in self.convs)

    def inference(self, loader: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Layer-wise inference over full one-hop batches, see :func:`mgic_geo.models.layerwise.infer`."""
        return infer(self, loader, *args, **kwargs)


class MGICGCN(_MGICModel, pyg.GCN):
    r""":class:`torch_geometric.nn.GCN` whose hidden layers are :class:`mgic_geo.MGICGraphConv`.

    Arguments, use and ``repr`` are PyG's. Layers from hidden to hidden width run a channel hierarchy. The
    first is PyG's own, as raw features want a dense map, with the blocks' normalisation and activation behind
    it; so is the one that writes ``out_channels`` (with ``jk=None``), which has nothing behind it. So a model
    of two layers with ``out_channels`` has no hierarchy. ``act``, ``act_kwargs`` and ``act_first`` are
    those of the blocks, and nothing is activated behind a residual; ``norm`` and ``dropout`` are behind each
    layer, where PyG has them.

    Args:
        in_channels: Width of the input, or -1 to take it from the first one.
        hidden_channels: Width of the hidden layers.
        num_layers: Number of layers; a MGIC layer passes messages once on each of its levels, all in all
            over ``num_hops`` edges.
        out_channels: Width of the output; ``hidden_channels`` if None.
        dropout: Probability.
        act: Activation of the blocks: a name, a function, a module or None.
        act_first: Activate before the blocks' normalisation.
        act_kwargs: Arguments of ``act``.
        norm: A further normalisation behind each layer, any of PyG's; None as in PyG.
        norm_kwargs: Arguments of ``norm``.
        jk: Jumping knowledge: None, ``"last"``, ``"cat"``, ``"max"`` or ``"lstm"``.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest level, :math:`s_c`.
        min_levels: Coarsen at least this many times.
        block_norm: Normalisation of the blocks, ``norm`` of :class:`mgic_geo.MGICGraphConv`; corrections have
            none.
        transfer_init: As for :class:`mgic_geo.MGICGraphConv`.
        **kwargs: Go to the layers.

    Shapes:
        - x: (N, in_channels); edge_index, edge_weight and all that follows as in PyG;
        - output: (N, out_channels).
    """

    conv_class = pyg.GCNConv


class MGICGraphSAGE(_MGICModel, pyg.GraphSAGE):
    """:class:`torch_geometric.nn.GraphSAGE` in channel hierarchies; see :class:`MGICGCN`.

    ``in_channels`` may be a pair of widths, of sources and targets. The layers' arguments, such as ``aggr``,
    are SAGEConv's.
    """

    conv_class = pyg.SAGEConv


class MGICGIN(_MGICModel, pyg.GIN):
    """:class:`torch_geometric.nn.GIN` in channel hierarchies; see :class:`MGICGCN`.

    The multilayer perceptrons within the levels are built to their widths, with ReLU and without
    normalisation. The layers' arguments, such as ``train_eps``, are GINConv's.
    """

    conv_class = pyg.GINConv


class MGICGAT(_MGICModel, pyg.GAT):
    """:class:`torch_geometric.nn.GAT` in channel hierarchies; see :class:`MGICGCN`.

    Every group of every level has ``heads`` heads of its own, which share its channels as in PyG
    (``concat=True``), so ``heads`` must divide the width of a group and ``coarse_size``. ``v2=True`` takes
    GATv2Conv; ``edge_dim`` makes the attention read ``edge_attr``; ``dropout`` acts on it, too.
    """

    conv_class = pyg.GATConv

    def _conv_of(self, kwargs: dict[str, Any]) -> Callable[..., nn.Module]:
        kwargs["dropout"] = self.dropout.p
        return pyg.GATv2Conv if kwargs.pop("v2", False) else pyg.GATConv
