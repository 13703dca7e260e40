import torch
from torch import nn
from torch_geometric.nn import MLP, AGNNConv, EdgeConv, GATConv, GCNConv, SimpleConv
from torchvision.models.resnet import BasicBlock
from torchvision.models.swin_transformer import ShiftedWindowAttention

import mgic_geo
from mgic_geo.convert.units import find_units


def reasons(model):
    return {unit.names[0]: unit.form for unit in find_units(model) if isinstance(unit.form, str)}


def test_units_come_in_the_models_order_blocks_as_wholes():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 8), nn.Flatten(), nn.Linear(8, 2))
    units = find_units(model)
    assert [unit.names for unit in units] == [["0"], ["1"], ["3"]]
    assert [unit.is_block for unit in units] == [False, True, False]
    assert [inner.names for inner in units[1].inside] == [["1.conv1"], ["1.conv2"]]
    assert [unit.names[0] for unit in find_units(model, blocks=False)] == ["0", "1.conv1", "1.conv2", "3"]


def test_a_module_in_two_places_is_one_unit():
    shared = nn.Linear(8, 8)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU(), shared), "b": nn.Sequential(shared)})
    (unit,) = find_units(model)
    assert unit.names == ["a.0", "a.2", "b.0"]


def test_what_would_lose_something_says_so():
    tied, hooked = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)), nn.Linear(8, 8)
    tied[1].weight = tied[0].weight
    hooked.register_forward_hook(lambda *_: None)
    assert reasons(tied) == {"1": "it shares weights with another layer"}
    assert reasons(hooked) == {"": "it has hooks, which would be lost"}
    patched, block = nn.Linear(8, 8), BasicBlock(8, 8)
    patched.forward = block.forward = torch.relu
    assert reasons(patched) == {"": "its forward was replaced, which would be lost"}
    assert [unit.names[0] for unit in find_units(block)] == ["conv1", "conv2"]


def test_what_reads_its_layers_weights_is_not_entered():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2), nn.MultiheadAttention(8, 2), nn.LSTM(8, 8))
    assert all(
        reason.endswith("reads the weights of its layers itself") for reason in reasons(model).values()
    )
    assert set(reasons(model)) == {"0", "1", "2"}


def test_multigrid_layers_are_left_alone():
    model = nn.Sequential(
        mgic_geo.MGICLinear(8, 8),
        mgic_geo.MGICGraphConv(8, 8),
        mgic_geo.EdgeConv(8, 8),
        mgic_geo.GroupedLinear(8, 8),
    )
    assert list(reasons(model).values()) == [
        "MGIC already", "MGIC already", "its MGIC form is MGICGraphConv(conv='edge')", "MGIC already",
    ]  # fmt: skip


def test_pyg_layers_and_the_networks_given_to_them():
    model = nn.ModuleList([GCNConv(8, 8), GATConv(8, 8), SimpleConv(), EdgeConv(MLP([16, 8, 8], norm=None))])
    units = find_units(model)
    assert [unit.names[0] for unit in units] == ["0", "1", "3"]
    assert units[2].form == "EdgeConv is not built from two widths"
    assert [inner.names[0] for inner in units[2].inside] == ["3.nn.lins.0", "3.nn.lins.1"]
    assert not units[0].inside
    assert callable(units[0].form)
    assert torch.is_tensor(units[0].module.lin.weight)


def test_grouped_layers_are_entered():
    """They are message-passing layers made of others, which alone are built from widths."""
    layers = mgic_geo.grouped(GCNConv, 2)(8, 8), mgic_geo.grouped(AGNNConv, 2)(8, 8)
    names = [unit.names[0] for unit in find_units(nn.ModuleList(layers))]
    assert names == ["0.layer", "1.convs.0", "1.convs.1"]
    fused = mgic_geo.fuse(nn.ModuleList([mgic_geo.EdgeConv(8, 8)]))
    assert reasons(fused) == {"0.center": "MGIC already", "0.neighbor": "MGIC already"}


class Reads(nn.Module):
    """Applies the weight of one layer itself, and calls another."""

    def __init__(self):
        super().__init__()
        self.read, self.called = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.called(nn.functional.linear(x, self.read.weight))


def test_a_layer_whose_weight_is_read_is_not_replaced():
    assert reasons(nn.Sequential(Reads())) == {"0.read": "Reads reads its weight itself"}
    assert reasons(Reads()) == {"read": "Reads reads its weight itself"}
    swin = ShiftedWindowAttention(8, [2, 2], [0, 0], 2)
    assert reasons(swin) == dict.fromkeys(("qkv", "proj"), "ShiftedWindowAttention reads its weight itself")


class Around(nn.Module):
    """Reads a weight inside a block."""

    def __init__(self):
        super().__init__()
        self.block = BasicBlock(8, 8)

    def forward(self, x):
        return self.block(x.to(self.block.conv1.weight.dtype))


def test_a_block_stays_around_a_layer_whose_weight_is_read():
    (unit,) = find_units(nn.Sequential(Around()))
    assert unit.form == "Around reads its weight itself"
    assert [(inner.names[0], callable(inner.form)) for inner in unit.inside] == [
        ("0.block.conv1", False), ("0.block.conv2", True),
    ]  # fmt: skip
    (unit,) = find_units(BasicBlock(8, 8), read={"conv2"})
    assert [callable(inner.form) for inner in unit.inside] == [True, False]
    assert unit.form == "another module reads its weight"
