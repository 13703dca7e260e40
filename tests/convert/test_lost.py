import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

from mgic_geo import MGICConv2d, replace_convs
from mgic_geo.convert.lost import Losses, is_frozen

SIZES = {"group_size": 8, "coarse_size": 8, "skip_ends": False}
HOOKED = "it has hooks, which would be lost"


def lost(module):
    return Losses(module)(module)


def ignore(*_):
    return None


@pytest.mark.parametrize(
    "register",
    [
        nn.Module.register_forward_hook, nn.Module.register_full_backward_hook,
        nn.Module._register_load_state_dict_pre_hook, nn.Module.register_load_state_dict_post_hook,
        nn.Module.register_load_state_dict_pre_hook, nn.Module.register_state_dict_pre_hook,
        nn.Module.register_state_dict_post_hook,
        lambda layer, hook: layer.weight.register_hook(hook),
        lambda layer, hook: layer.bias.register_post_accumulate_grad_hook(hook),
    ],
)  # fmt: skip
def test_hooks_of_all_kinds(register):
    layer = nn.Linear(32, 32)
    register(layer, ignore)
    assert lost(layer) == HOOKED
    assert lost(nn.Sequential(layer)) == HOOKED


@pytest.mark.parametrize("kind", ["message_forward", "propagate_forward_pre", "aggregate_forward"])
def test_hooks_of_message_passing(kind):
    conv = pyg.GCNConv(32, 32)
    assert not lost(conv)
    getattr(conv, f"register_{kind}_hook")(ignore)
    assert lost(conv) == HOOKED


@pytest.mark.parametrize("value", [[1], True, 2, {"relu": 3}])
def test_what_is_only_called_hooks(value):
    layer = nn.Linear(8, 8)
    layer.my_hooks = value
    assert not lost(layer)


def test_hooks_that_a_class_registers_are_its_own():
    class Own(nn.Linear):
        def __init__(self):
            super().__init__(8, 8)
            self._register_load_state_dict_pre_hook(self.prepare)

        def prepare(self, *_):
            return None

    assert not lost(Own())
    own, other = Own(), Own()
    own.register_load_state_dict_post_hook(other.prepare)
    assert lost(own) == HOOKED


def test_lazy_layers_say_so_and_others_are_replaced():
    unknown = "its width is not known yet: run the model once first"
    lazy = [nn.LazyLinear(32), nn.LazyConv2d(32, 3), pyg.SAGEConv(-1, 32), pyg.GCNConv(-1, 32)]
    table = replace_convs(nn.ModuleList([*lazy, nn.Linear(32, 32)]), dry_run=True, **SIZES)
    assert [row.reason for row in table.rows] == [unknown] * 4 + [""]
    model = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 32))
    table = replace_convs(model, inputs=torch.randn(2, 9), **SIZES).conversion
    assert [row.reason for row in table.rows] == [unknown, ""]


@pytest.mark.parametrize("freeze", [lambda norm: norm.eval(), lambda norm: norm.requires_grad_(False)])
def test_blocks_with_frozen_normalisations_keep_them(freeze):
    model = resnet18(num_classes=5).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            freeze(module)
    converted = replace_convs(model, 32, 32)
    block = converted.layer2[1]
    assert isinstance(block, BasicBlock)
    assert isinstance(block.conv1, MGICConv2d)
    assert (block.bn1.training, block.bn1.weight.requires_grad) == (
        model.layer2[1].bn1.training,
        model.layer2[1].bn1.weight.requires_grad,
    )


def test_message_passing_that_is_frozen_in_parts():
    conv = pyg.GCNConv(32, 32)
    conv.bias.requires_grad_(False)
    assert lost(conv).startswith("some of it is frozen or in evaluation mode")
    assert not lost(conv.requires_grad_(False))


class Adapted(nn.Module):
    """A frozen layer with an adapter, as LoRA has it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(32, 32).requires_grad_(False)
        self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_frozen_layers_are_only_projected():
    (row, *_) = replace_convs(Adapted(), **SIZES).conversion.rows
    assert row.reason == "frozen: new weights would never be trained; init='project' fits them"
    fitted = replace_convs(Adapted(), init="project", steps=1, **SIZES)
    assert fitted.conversion.rows[0].after
    assert {name for name, p in fitted.named_parameters() if p.requires_grad} == {"down.weight", "up.weight"}


def test_frozen_are_maps():
    layer = nn.Linear(8, 8)
    layer.bias.requires_grad_(False)
    assert not is_frozen(layer)
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(True)
    assert is_frozen(layer)
