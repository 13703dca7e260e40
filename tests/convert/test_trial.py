from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mgic_geo import Conversion, MGICLinear, replace_convs
from mgic_geo.convert.trial import check_model, check_values

SIZES = {"group_size": 8, "coarse_size": 8, "skip_ends": False}


class Wrapper(nn.parallel.DistributedDataParallel):
    """What is one by its class, without other processes."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("resnet18", "must be an object of torch.nn.Module, got one of str"),
        (nn.Linear, "got the class Linear"),
        (nn.Linear(2, 2).state_dict(), "got one of OrderedDict"),
        (nn.Sequential(torch.jit.ScriptModule()), "convert the model, then trace or export it"),
        (Wrapper(nn.Linear(2, 2)), r"a DistributedDataParallel keeps a register .*\.module"),
        (nn.Sequential(Wrapper(nn.Linear(2, 2))), "DistributedDataParallel"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_converted(model, told):
    with pytest.raises(TypeError, match=told):
        replace_convs(model)


def test_sharded_models_are_refused():
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    with pytest.raises(TypeError, match="FSDPModule"):
        check_model(
            type(
                "FSDPLinear", (fsdp.FSDPModule, nn.Linear), {"__new__": lambda kind, *_: object.__new__(kind)}
            )(2, 2)
        )


def test_a_model_with_a_conversion_of_its_own():
    class Method(nn.Linear):
        def conversion(self):
            return None

    part = nn.Sequential()
    part.conversion = nn.Linear(2, 2)
    for model in (Method(2, 2), part):
        with pytest.raises(ValueError, match="has a 'conversion' of its own"):
            replace_convs(model)
    again = replace_convs(replace_convs(nn.Sequential(nn.Linear(32, 32)), **SIZES), **SIZES)
    assert isinstance(again.conversion, Conversion)


def test_nothing_is_fitted_on_the_meta_device():
    model = nn.Sequential(nn.Linear(32, 32))
    with pytest.raises(ValueError, match="the meta device has not"):
        replace_convs(model.to("meta"), init="project")
    with pytest.raises(ValueError, match="the meta device has not"):
        check_values(nn.Linear(2, 2), [torch.empty(2, device="meta")])


class Hidden(nn.Module):
    """Holds a layer where nobody looks; a copy of it does so, too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)
        self.deep = SimpleNamespace(inner=SimpleNamespace(layer=self.layer))

    def forward(self, x):
        return self.deep.inner.layer(x)


class Picky(nn.Module):
    """Calls its layer otherwise if it is another."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def forward(self, x):
        return self.layer(x[:, 1:] if isinstance(self.layer, MGICLinear) else x)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Hidden, "'layer' runs as Linear 32 -> 32 even after its replacement: .*outside the module tree"),
        (Picky, "'layer' ran on these inputs as Linear 32 -> 32, but fails as MGICLinear 32/16/8: Value"),
    ],
)
def test_the_run_after_names_the_layer_and_nothing_has_changed(kind, told, inplace):
    model, x = kind(), torch.randn(4, 32)
    layer = model.layer
    with pytest.raises(ValueError, match=told) as raised:
        replace_convs(model, inputs=x, inplace=inplace, **SIZES)
    assert "match=lambda name, _: name != 'layer' leaves it alone" in str(raised.value)
    assert model.layer is layer
    assert not layer._forward_pre_hooks
    kept = replace_convs(model, inputs=x, inplace=inplace, match=lambda name, _: name != "layer", **SIZES)
    assert kept(x).shape == x.shape


def test_no_hooks_stay():
    converted = replace_convs(nn.Sequential(nn.Linear(32, 32)), inputs=torch.randn(4, 32), **SIZES)
    assert not converted[0]._forward_pre_hooks
    assert not converted[0]._forward_hooks
