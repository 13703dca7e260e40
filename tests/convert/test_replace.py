import copy

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from mgic_geo import Conversion, MGICBasicBlock2d, MGICConv2d, MGICLinear, replace_convs
from mgic_geo.convert.messages import MGICMessagePassing

SIZES = {"group_size": 8, "coarse_size": 8}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


class Net(nn.Module):
    """A stem, two blocks, a grouped and a dense convolution, a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.Sequential(BasicBlock(32, 32), BasicBlock(32, 32))
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.conv = nn.Conv2d(32, 64, 3, 2, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.conv(self.depthwise(self.blocks(self.stem(x))))
        return self.head(x.mean((2, 3)))


def test_blocks_become_blocks_and_layers_layers():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    converted = replace_convs(model, **SIZES)
    kinds = [type(m) for m in (*converted.blocks, converted.conv, converted.depthwise, converted.head)]
    assert kinds == [MGICBasicBlock2d, MGICBasicBlock2d, MGICConv2d, nn.Conv2d, nn.Linear]
    assert converted(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not hasattr(model, "conversion")
    assert {row.name: row.reason for row in converted.conversion.left} == {
        "stem": "the first layer: skip_ends=False replaces it",
        "depthwise": "depth-wise",
        "head": "the last layer: skip_ends=False replaces it",
    }
    layers = replace_convs(model, blocks=False, **SIZES)
    assert type(layers.blocks[0]) is BasicBlock
    assert type(layers.blocks[0].conv1) is MGICConv2d


def test_the_table_counts_what_the_model_has():
    model = Net()
    table = replace_convs(model, dry_run=True, inputs=torch.randn(1, 3, 8, 8), **SIZES)
    assert isinstance(table, Conversion)
    assert type(model.blocks[0]) is BasicBlock
    converted = replace_convs(model, inputs=(torch.randn(1, 3, 8, 8),), **SIZES)
    assert converted.conversion == table
    assert table.parameters[1] == sum(p.numel() for p in converted.parameters()) < table.parameters[0]
    saved = sum(a - b for a, b in (row.parameters for row in table.rows))
    assert saved == table.parameters[0] - table.parameters[1]
    saved = sum(a - b for a, b in (row.multiply_adds for row in table.rows))
    assert saved == table.multiply_adds[0] - table.multiply_adds[1] > 0


def test_choosing():
    model = Net()
    assert [r.name for r in replace_convs(model, match="blocks.1", **SIZES).conversion.replaced] == [
        "blocks.1"
    ]
    inner = replace_convs(model, match="*.conv1", **SIZES)
    assert [r.name for r in inner.conversion.replaced] == ["blocks.0.conv1", "blocks.1.conv1"]
    wide = replace_convs(model, match=lambda name, module: getattr(module, "out_channels", 0) == 64, **SIZES)
    assert [r.name for r in wide.conversion.replaced] == ["conv"]
    assert "not matched" in str(wide.conversion)
    ends = replace_convs(mlp(), 4, 4, skip_ends=False)
    assert [type(m) for m in ends[::2]] == [MGICLinear] * 3 + [nn.Linear]


def test_no_gain_is_left_alone():
    (row,) = replace_convs(nn.Sequential(nn.Linear(16, 16)), 16, 15, dry_run=True, skip_ends=False).rows
    assert row.reason.startswith("no gain: its MGIC form has ")
    table = replace_convs(mlp(), 8, 128, dry_run=True)
    assert not table.replaced
    assert table.rows[1].reason == "too narrow: 64 channels, coarse_size=128"


def test_in_place_and_whole():
    model = mlp()
    optimised = model[2].weight
    assert replace_convs(model, inplace=True, **SIZES) is model
    assert isinstance(model[2], MGICLinear)
    assert all(p is not optimised for p in model.parameters())
    layer = nn.Linear(64, 64)
    assert isinstance(replace_convs(layer, skip_ends=False, **SIZES), MGICLinear)
    with pytest.raises(ValueError, match="the model is itself the Linear to replace"):
        replace_convs(layer, skip_ends=False, inplace=True, **SIZES)


def test_a_layer_used_twice_stays_one_layer():
    shared = nn.Linear(64, 64)
    model = nn.Sequential(nn.Linear(8, 64), shared, nn.ReLU(), shared, nn.Linear(64, 8))
    converted = replace_convs(model, **SIZES)
    assert isinstance(converted[1], MGICLinear)
    assert converted[1] is converted[3]


def test_a_seed_decides_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (replace_convs(Net(), seed=5, **SIZES).state_dict() for _ in range(2))
    torch.manual_seed(3)
    replace_convs(mlp(), seed=5, **SIZES)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    model = mlp()
    torch.manual_seed(3)
    replace_convs(model, seed=5, **SIZES)
    assert torch.equal(torch.rand(1), expected)


def test_projection_comes_nearer_and_says_how_near():
    model = mlp().eval()
    model[2].weight.data = 0.1 * torch.randn(64, 2) @ torch.randn(2, 64)
    x = torch.randn(128, 16)
    drawn = replace_convs(model, seed=0, **SIZES)
    fitted = replace_convs(model, inputs=x, init="project", seed=0, steps=40, **SIZES)
    (row,) = fitted.conversion.replaced
    assert row.error < 0.7
    assert (fitted(x) - model(x)).norm() < 0.8 * (drawn(x) - model(x)).norm()
    assert not fitted.training
    without = replace_convs(model, init="project", seed=0, steps=1, dry_run=True, **SIZES)
    assert [row.error is None for row in without.rows] == [True, False, True, True]


def test_graph_models_convert_their_layers():
    x, graph = torch.randn(20, 16), torch.randint(20, (2, 60))
    for model in (pyg.GAT(16, 64, 3, 5, heads=2), pyg.GCN(16, 64, 3, 5, jk="cat"), pyg.EdgeCNN(16, 64, 3, 5)):
        converted = replace_convs(model, inputs=(x, graph), **SIZES)
        kind = pyg.EdgeConv if isinstance(model, pyg.EdgeCNN) else MGICMessagePassing
        assert type(converted.convs[1]) is kind
        assert converted(x, graph).shape == (20, 5)
        assert converted.conversion.parameters[1] < converted.conversion.parameters[0]
    network = pyg.Sequential("x, graph", [(pyg.SAGEConv(16, 64), "x, graph -> x"), nn.ReLU()] * 2)
    assert replace_convs(network, dry_run=True, **SIZES).rows


def test_layers_that_are_called_on_pairs():
    torch.manual_seed(0)
    model = pyg.AttentiveFP(16, 64, 5, 4, num_layers=3, num_timesteps=2)
    x, graph, edges = torch.randn(20, 16), torch.randint(20, (2, 60)), torch.randn(60, 4)
    inputs = (x, graph, edges, torch.arange(20) // 5)
    converted = replace_convs(model, inputs=inputs, **SIZES)
    assert isinstance(converted.mol_conv, MGICMessagePassing)
    converted(*inputs).sum().backward()
    assert converted(*inputs).shape == (4, 5)
    fitted = replace_convs(model, inputs=inputs, init="project", steps=2, seed=0, match="mol_conv", **SIZES)
    assert fitted.conversion.replaced[0].error > 0


def test_a_resnet_with_wide_groups_is_converted_layer_by_layer():
    class Block(BasicBlock):
        expansion = 1

        def __init__(self, inplanes, planes, *args, groups=1, base_width=64, **kwargs):
            super().__init__(inplanes, planes, *args, **kwargs)
            self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, groups=4, bias=False)

    model = ResNet(Block, [1, 1, 1, 1], num_classes=3)
    names = [row.name for row in replace_convs(model, 32, 64, match="layer3", dry_run=True).replaced]
    assert names == ["layer3.0.conv1", "layer3.0.downsample.0"]


def test_a_graph_layer_that_is_left_has_a_row_beside_those_of_its_network():
    network = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    converted = replace_convs(nn.ModuleList([pyg.GINConv(network)]), skip_ends=False, **SIZES)
    whole, first, last = converted.conversion.rows
    assert (whole.name, whole.reason.partition(" that")[0]) == ("0", "its nn is no MLP of PyG")
    assert [type(layer) for layer in converted[0].nn] == [MGICLinear, nn.ReLU, MGICLinear]
    assert (
        whole.parameters[1] == first.parameters[1] + last.parameters[1] == converted.conversion.parameters[1]
    )


def test_bad_options():
    with pytest.raises(ValueError, match="init must be None or 'project', got 'svd'"):
        replace_convs(mlp(), init="svd")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        replace_convs(mlp(), steps=0)
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        replace_convs(mlp(), 0)


def test_inputs_by_name_and_a_list_as_one_argument():
    class Named(nn.Sequential):
        def forward(self, images, flip=False):
            x = torch.stack(images) if isinstance(images, list) else images
            return super().forward(x.flip(0) if flip else x)

    model, x = Named(*mlp()), torch.randn(4, 16)
    table = replace_convs(model, **SIZES, inputs=x, dry_run=True)
    for inputs in ({"images": x, "flip": True}, ([*x],), (x, True)):
        assert replace_convs(model, **SIZES, inputs=inputs, dry_run=True).multiply_adds == table.multiply_adds
    named = replace_convs(model, **SIZES, inputs={"images": x}, init="project", steps=2)
    assert any(row.error is not None for row in named.conversion.rows)


def test_projection_where_gradients_are_off():
    with torch.no_grad():
        converted = replace_convs(mlp(), **SIZES, init="project", steps=2)
    assert all(p.requires_grad for p in converted.parameters())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="call replace_convs outside it"):
        replace_convs(mlp(), **SIZES, init="project")


def test_a_projection_that_needs_other_inputs_names_the_layer():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(16, 16), pyg.RGCNConv(16, 16, 2)

        def forward(self, x):
            return self.body(x)

    told = r"'head': init='project' needs inputs of the model that reach this RGCNConv in evaluation.*head'"
    with pytest.raises(ValueError, match=told):
        replace_convs(Auxiliary(), inputs=torch.randn(4, 16), init="project", skip_ends=False, **SIZES)


def test_what_cannot_be_copied_is_converted_in_place():
    def uncopied():
        model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
        model.seen = 2 * model[0].weight  # amid a graph
        return model

    for dry_run in (False, True):
        with pytest.raises(ValueError, match=r"the Sequential cannot be copied .*: use inplace=True"):
            replace_convs(uncopied(), dry_run=dry_run, skip_ends=False, **SIZES)
    model = uncopied()
    before, state = [*model], copy.copy(model[1].state_dict())
    for init in (None, "project"):
        table = replace_convs(
            model, inputs=torch.randn(4, 32), inplace=True, dry_run=True, init=init, skip_ends=False, **SIZES
        )
        assert len(table.replaced) == 2
        assert [*model] == before
        assert all(torch.equal(value, model[1].state_dict()[name]) for name, value in state.items())
        assert not hasattr(model, "conversion")
    assert isinstance(replace_convs(model, inplace=True, skip_ends=False, **SIZES)[1], MGICLinear)


def test_a_layer_that_has_not_so_many_levels_is_left_alone():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(64, 64), nn.Linear(64, 64))
    table = replace_convs(model, 4, 4, min_levels=5, skip_ends=False, dry_run=True)
    assert table.rows[0].reason.startswith("min_levels=5 cannot be reached: 16 channels are down to 1")
    assert [bool(row.after) for row in table.rows] == [False, True, True]
    with pytest.raises(ValueError, match="min_levels must be at least 0, got -1"):
        replace_convs(mlp(), min_levels=-1)
