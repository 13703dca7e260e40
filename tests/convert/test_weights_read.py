import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from mgic_geo import MGICLinear, replace_convs
from mgic_geo.convert.weights_read import paths_read, watch_weights

SIZES = {"group_size": 8, "coarse_size": 8, "skip_ends": False}


def helper(layer, x):
    return F.linear(x, layer.weight, layer.bias)


class Net(nn.Module):
    """Layers that subclasses apply in their ways; ``called`` is only ever called."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])
        self.inner = nn.ModuleDict({"fc": nn.Linear(32, 32)})
        self.called = nn.Linear(32, 32)
        self.weight = nn.Parameter(torch.ones(32))


class Loop(Net):
    def forward(self, x):
        for layer in self.layers:
            x = F.linear(x, layer.weight)
        return self.called(x)


class Comprehension(Net):
    def forward(self, x):
        return self.called(sum(F.linear(x, layer.weight) for _, layer in enumerate(self.layers)))


class Indexed(Net):
    def forward(self, x):
        return self.called(F.linear(x, self.layers[0].weight))


class Variable(Net):
    def forward(self, x):
        layer = self.layers[-1]
        return self.called(x @ layer.weight.t())


class Helper(Net):
    def forward(self, x):
        return self.called(helper(self.layers[0], x))


class Static(Net):
    @staticmethod
    def apply_to(layer, x):
        return F.linear(x, getattr(layer, "weight"))  # noqa: B009

    def forward(self, x):
        return self.called(self.apply_to(self.layers[0], x))


class Method(Net):
    def forward(self, x):
        return self.called(self.first(x))

    def first(self, x):
        return helper(self.layers[0], x)


class Super(Loop):
    def forward(self, x):
        return super().forward(x).relu()


class Children(Net):
    def forward(self, x):
        for layer in self.children():
            x = x.to(layer.weight.dtype) if isinstance(layer, nn.Linear) else x
        return x


class Deep(Net):
    def forward(self, x):
        return self.called(x.to(self.inner.fc.weight.dtype))


class Property(Net):
    @property
    def dtype(self):
        return self.inner["fc"].weight.dtype

    def forward(self, x):
        return self.called(x.to(self.dtype))


READERS = [
    (Loop, {"layers"}), (Comprehension, {"layers"}), (Indexed, {"layers"}), (Variable, {"layers"}),
    (Helper, {"layers"}), (Static, {"layers"}), (Method, {"layers"}), (Super, {"layers"}), (Children, {""}),
    (Deep, {"inner.fc"}), (Property, {"inner"}),
]  # fmt: skip


class Calls(Net):
    """Reads its own weight, and calls its layers."""

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        if self.called is not None and len(self.layers) > 1:
            x = self.inner["fc"](self.layers[0](x))
        return self.called(x) * self.weight

    def extra_repr(self):
        return str(self.called.weight.shape)


@pytest.mark.parametrize(("kind", "paths"), READERS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_source_tells_and_the_converted_model_runs(kind, paths):
    assert {
        path for path in paths_read(kind) if path in ("", "layers", "inner", "inner.fc", "called")
    } == paths
    torch.manual_seed(0)
    converted = replace_convs(nn.Sequential(kind()), **SIZES)
    assert converted(x := torch.randn(4, 32)).shape == x.shape
    assert isinstance(converted[0].called, MGICLinear) is (paths != {""})
    left = {row.reason for row in converted.conversion.left}
    assert left == {f"{kind.__name__} reads its weight itself"}


def test_layers_that_are_called_are_replaced():
    assert not paths_read(Calls)
    for inputs in (None, torch.randn(4, 32)):
        assert not replace_convs(Calls(), inputs=inputs, **SIZES).conversion.left


class Stored(Net):
    """Its source does not tell what it does."""

    def __init__(self, function):
        super().__init__()
        self.function, self.map = function, PyGLinear(32, 32)

    def forward(self, x):
        return self.called(self.function(self.map, self.layers[0](x)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_run_tells_what_the_source_does_not(device):
    model = Stored(helper)
    assert not paths_read(Stored)
    table = replace_convs(model, inputs=torch.empty(4, 32, device=device), dry_run=True, **SIZES)
    assert {row.name: row.reason for row in table.left} == {"map": "another module reads its weight"}
    converted = replace_convs(model, inputs=torch.randn(4, 32), inplace=True, **SIZES)
    assert converted(torch.randn(4, 32)).shape == (4, 32)
    assert isinstance(converted.called, MGICLinear)
    assert type(converted.map) is PyGLinear


def test_watching_leaves_no_trace():
    model = Stored(helper)
    state = [(type(module), sorted(vars(module))) for module in model.modules()]
    with pytest.raises(RuntimeError, match="shapes"), watch_weights(model):
        model(torch.randn(4, 31))
    with watch_weights(model) as read:
        model(torch.randn(4, 32))
        model.called.forward(torch.randn(4, 32))
    assert read == {"map"}
    assert [(type(module), sorted(vars(module))) for module in model.modules()] == state
