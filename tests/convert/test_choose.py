import pytest
from torch import nn

from mgic_geo.convert.choose import chooser


def model():
    return nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 2)})


@pytest.mark.parametrize(
    ("match", "chosen"),
    [
        (None, {"body.0", "body.1", "head"}),
        ("body", {"body.0", "body.1"}),
        ("*.1", {"body.1"}),
        (["head", "body.0"], {"body.0", "head"}),
        (nn.Linear, {"body.0", "body.1", "head"}),
        ((nn.Sequential, "head"), {"body.0", "body.1", "head"}),
        ([], set()),
        (lambda name, module: isinstance(module, nn.Linear) and name != "head", {"body.0", "body.1"}),
    ],
)
def test_patterns_and_predicates(match, chosen):
    net = model()
    found = chooser(match, net)
    names = {name for name, m in net.named_modules() if isinstance(m, nn.Linear) and found(name, m)}
    assert names == chosen


def test_a_pattern_that_fits_nothing_is_an_error_with_a_suggestion():
    with pytest.raises(ValueError, match=r"match='boddy' fits the name of no module; there are body"):
        chooser(["head", "boddy"], model())
    with pytest.raises(ValueError, match=r"match='zzzz' .*; there are body, body\.0, body\.1$"):
        chooser("zzzz", model())


@pytest.mark.parametrize(
    ("match", "error", "told"),
    [
        (nn.Conv2d, ValueError, "match=Conv2d fits no module"),
        ([nn.Linear, nn.Conv2d], ValueError, "match=Conv2d fits no module"),
        (5, TypeError, "a function of a name and a module, got 5"),
        ([5], TypeError, "got 5"),
        (int, TypeError, "got <class 'int'>"),
        (nn.Linear(2, 2), TypeError, r"got Linear\(in_features=2"),
    ],
)
def test_what_chooses_nothing(match, error, told):
    with pytest.raises(error, match=told):
        chooser(match, model())
