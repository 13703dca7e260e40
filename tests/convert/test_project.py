import copy

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torchvision.models.resnet import BasicBlock

from mgic_geo import MGICConv2d, MGICLinear
from mgic_geo.convert.blocks import block_form
from mgic_geo.convert.forms import Sizes
from mgic_geo.convert.layers import layer_form
from mgic_geo.convert.messages import message_form
from mgic_geo.convert.project import capture, project

SIZES = Sizes(8, 8)


def low_rank(layer, rank=2):
    """Give a layer weights that a coarse level can hold."""
    torch.manual_seed(0)
    rows, columns = torch.randn(layer.weight.size(0), rank), torch.randn(rank, layer.weight[0].numel())
    layer.weight.data = 0.2 * (rows @ columns).view_as(layer.weight)
    return layer


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(32, 32), nn.Linear(16, 32, bias=False), nn.Conv2d(32, 16, 1)],
    ids=str,
)
def test_a_map_of_low_rank_is_found(layer):
    new = layer_form(low_rank(layer))(SIZES)
    start = project(copy.deepcopy(new), layer, steps=1)
    error = project(new, layer, steps=40)
    assert error < 0.8 * start


def test_half_precision_is_fitted_as_well_as_single():
    single = low_rank(nn.Linear(64, 64), 6)
    errors = []
    for layer in (single, copy.deepcopy(single).half()):
        torch.manual_seed(1)
        new = layer_form(layer)(Sizes(8, 16))
        errors.append(project(new, layer, steps=40))
        assert next(new.parameters()).dtype == layer.weight.dtype
        x = torch.randn(300, 64).to(layer.weight)
        off = (new(x) - layer(x)).detach().float().norm() / layer(x).detach().float().norm()
        assert float(off) == pytest.approx(errors[-1], rel=0.1)
    assert errors[1] < 1.03 * errors[0]


def test_a_solved_level_is_the_least_squares_solution():
    # One group and one level: the map itself, which the closed form finds but for rounding and its ridge.
    for layer, new in (
        (nn.Linear(12, 12), MGICLinear(12, 12, 16, 16)),
        (nn.Conv2d(6, 6, 3, padding=1), MGICConv2d(6, 6, 3, padding=1, group_size=8, coarse_size=8)),
        (
            nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"),
            MGICConv2d(6, 6, 3, padding=1, padding_mode="circular", group_size=8, coarse_size=8),
        ),
    ):
        assert project(new, layer, steps=1) < 1e-3
        torch.testing.assert_close(new.cycle.blocks[0].weight.squeeze(), layer.weight, rtol=1e-2, atol=1e-3)


def test_blocks_and_graph_layers_come_nearer():
    torch.manual_seed(0)
    block, conv = BasicBlock(16, 16), pyg.SAGEConv(16, 16)
    for old, form in ((block, block_form(block)), (conv, message_form(conv))):
        new = form(SIZES)
        assert project(new, old, steps=15) < project(copy.deepcopy(form(SIZES)), old, steps=1)
        assert new.training


def test_modes_and_frozen_weights_stay():
    layer = nn.Linear(32, 32).requires_grad_(False).eval()
    new = layer_form(layer)(SIZES)
    before = layer.weight.clone()
    project(new, layer, steps=1)
    assert not new.training
    assert not layer.training
    assert not any(p.requires_grad for p in new.parameters())
    assert torch.equal(layer.weight, before)
    assert all(p.grad is None for p in new.parameters())


def test_inputs_are_captured_as_they_were():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)).train()
    x = torch.randn(3, 4)
    calls = capture(model, (x,), {}, {"first": model[0], "relu": model[1]})
    assert torch.equal(calls["first"][0][0][0], x)
    torch.testing.assert_close(calls["relu"][0][0][0], model[0](x))
    assert model.training
    assert not model[0]._forward_pre_hooks


def test_what_cannot_run_on_random_inputs_asks_for_some():
    conv = pyg.RGCNConv(32, 32, num_relations=2)
    with pytest.raises(ValueError, match=r"needs inputs=.* for this RGCNConv.*: AssertionError\(\)"):
        project(message_form(conv)(SIZES), conv, steps=1)
    with pytest.raises(ValueError, match=r"needs inputs of the model that reach this RGCNConv in evaluation"):
        project(message_form(conv)(SIZES), conv, [], steps=1)
    with pytest.raises(ValueError, match=r"runs the RGCNConv again on what .* fails: AssertionError"):
        project(message_form(conv)(SIZES), conv, [((torch.ones(3, 32), torch.ones(2, 0).long()), {})], 1)


@pytest.mark.parametrize(
    ("old", "new", "shape"),
    [
        (
            nn.Conv2d(16, 16, 3, padding=1),
            MGICConv2d(16, 16, 3, padding=1, group_size=4, coarse_size=4),
            (16, 6, 6),
        ),
        (nn.Linear(16, 16), MGICLinear(16, 16, 4, 4), (16,)),
    ],
)
def test_one_image_or_row_is_a_batch_of_one(old, new, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    start, again = copy.deepcopy(new), copy.deepcopy(new)
    error = project(start, old, [((x,), {})] * 2, steps=20)
    assert error == pytest.approx(project(again, old, [((), {"input": x[None]})] * 2, steps=20))
    assert error < 0.5
