import re

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from mgic_geo import replace_convs
from mgic_geo.convert.calls import watch_calls
from mgic_geo.convert.forms import Sizes
from mgic_geo.convert.messages import message_form

SIZES = Sizes(8, 8)
X, EDGES = torch.randn(20, 32), torch.randint(20, (2, 80))


class Own(pyg.MessagePassing):
    """Someone's own layer."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, feat, graph):
        return self.propagate(graph, x=self.lin(feat))


class WithInput(Own):
    def forward(self, x, edge_index):
        return torch.cat([x, super().forward(x, edge_index)], dim=1)


class Pair(Own):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index), x


class GraphFirst(Own):
    def forward(self, edge_index, x):
        return super().forward(x, edge_index)


DOES_NOT_RUN = "its MGIC form does not run where it does: "
NO_OTHER_WIDTH = DOES_NOT_RUN + "a layer's output takes the place of its input, so"


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (pyg.MixHopConv(32, 32), NO_OTHER_WIDTH),
        (pyg.SignedConv(32, 16, first_aggr=True), NO_OTHER_WIDTH),
        (
            pyg.HypergraphConv(32, 32, use_attention=True, heads=2, concat=False),
            DOES_NOT_RUN + "(mm: )?mat1 and mat2",  # as torch says it, from 2.15 on and before
        ),
        (WithInput(32, 32), NO_OTHER_WIDTH),
        (Pair(32, 32), NO_OTHER_WIDTH),
        (GraphFirst(32, 32), DOES_NOT_RUN + "x needs in_channels=32"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_form_that_would_not_run_is_none(conv, reason):
    state, mode = torch.get_rng_state(), conv.training
    assert re.match(reason, message_form(conv)(SIZES))
    assert conv.training is mode
    torch.set_rng_state(state)
    assert message_form(conv.to("meta"))(SIZES).cycle is not None  # nothing can be tried there


@pytest.mark.parametrize(
    ("conv", "more"),
    [
        (pyg.GATConv(32, 32, edge_dim=3), {"edge_attr": torch.randn(80, 3)}),
        (pyg.RGCNConv(32, 32, 3), {"edge_type": torch.randint(3, (80,))}),
        (pyg.FastRGCNConv(32, 32, 3, num_bases=2), {"edge_type": torch.randint(3, (80,))}),
        (pyg.PointTransformerConv(32, 32), {"pos": torch.randn(20, 3)}),
        (pyg.GENConv(32, 32), {}),
        (pyg.SGConv(32, 32).half(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_form_that_runs_is_built(conv, more):
    x = X.to(next(conv.parameters()))
    new = message_form(conv)(SIZES)
    assert new(x=x, edge_index=EDGES, **more).shape == (20, 32)


def test_the_first_argument_may_have_any_name():
    new = message_form(Own(32, 32))(SIZES)
    assert torch.equal(new(feat=X, graph=EDGES), new(X, EDGES))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        new(graph=EDGES)


class Net(nn.Module):
    """Gives edge features to a layer that was not told of any."""

    def __init__(self):
        super().__init__()
        self.conv = pyg.GENConv(32, 32, norm="batch")

    def forward(self, x, edges, features):
        return self.conv(self.conv(x, edges).relu_(), edges, edge_attr=features)


def test_inputs_tell_how_a_layer_is_called():
    features, options = torch.randn(80, 32), {"group_size": 8, "coarse_size": 8, "skip_ends": False}
    model = replace_convs(Net(), inputs=(X, EDGES, features), **options)
    assert type(model.conv) is pyg.GENConv
    assert model(X, EDGES, features).shape == (20, 32)
    told = message_form(Net().conv, [((X, EDGES), {"edge_attr": features})])(SIZES)
    assert told.startswith(DOES_NOT_RUN + "GENConv refused its arguments on a level")
    assert replace_convs(Net(), **options)(X, EDGES, None).shape == (20, 32)


def test_calls_of_one_form_are_kept_once():
    model = Net()
    with watch_calls(model) as calls:
        for _ in range(3):
            model(X, EDGES, torch.randn(80, 32))
    assert [sorted(kwargs) for _, kwargs in calls["conv"]] == [[], ["edge_attr"]]
    assert not model.conv._forward_pre_hooks


def test_a_kept_graph_hides_nothing():
    conv = pyg.GCNConv(32, 32, cached=True)
    conv(X, EDGES)
    new = message_form(conv)(SIZES)
    other = torch.randint(30, (2, 90))
    assert new(torch.randn(30, 32), other).shape == (30, 32)
