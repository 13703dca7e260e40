"""Known models convert, train a step, save, load and export: a few here, all by the script itself."""

import sys

import pytest
import torch

CHEAP = ["torchvision/mobilenet_v3_small", "timm/resnet10t", "pyg/GAT", "pyg/PNA"]


def test_the_table(script, tmp_path, capsys):
    main = script("convert")
    output = tmp_path / "table.md"
    names = ["torchvision/resnet18", *CHEAP]
    main(["--models", *names, "--image-size", "64", "--check-size", "48", "--output", str(output)])
    head, rule, *rows = output.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == [head, rule, *rows]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [f"`{name}`" for name in names]
    assert cells[0] == ["`torchvision/resnet18`", "11.7", "2.85", "76%", "149", "82.2", "45%", "6", "6"]
    for row in cells:
        numbers = [float(cell.replace(",", "")) for cell in (*row[1:3], *row[4:6])]
        assert numbers[1] < numbers[0]
        assert numbers[3] < numbers[2]


def test_layers_and_settings(script, capsys):
    main = script("convert")
    main(["--models", "pyg/GraphSAGE", "--no-check", "--layers", "--group-size", "16", "--coarse-size", "32"])
    out = capsys.readouterr().out
    assert "| convs.1 | SAGEConv 256 -> 256 | MGICMessagePassing 256/128/64/32 |" in out


def test_a_model_without_a_gradient_fails_the_check(script):
    script("convert")
    module = sys.modules["experiments_convert"]
    model = module.build("pyg/GCN")
    model.unused = module.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"no finite gradient of \['unused.weight', 'unused.bias'\]"):
        module.check(model, model, module.example("pyg/GCN", 0, 1))


class TwoHeads(torch.nn.Module):
    """As GoogLeNet does, it gives what its auxiliary head says while it trains."""

    def __init__(self):
        super().__init__()
        self.head, self.aux = torch.nn.Linear(4, 10), torch.nn.Linear(4, 10)

    def forward(self, x):
        return (self.head(x), self.aux(x), None) if self.training else self.head(x)


def test_heads_that_only_train_take_part_in_the_step(script):
    script("convert")
    sys.modules["experiments_convert"].check(TwoHeads(), TwoHeads(), (torch.randn(2, 4),))


def test_a_model_that_takes_other_sizes_is_named(script, refused):
    flags = ["--models", "torchvision/vit_b_16", "--check-size", "96"]
    message = (
        "error: --models torchvision/vit_b_16: Wrong image height! Expected 224 but got 96! (at --check-size"
    )
    assert refused(script("convert"), flags).startswith(message)


@pytest.mark.parametrize(
    "name", ["torchvision/resnet19", "timm/nothing", "pyg/Nothing", "pyg/MLP", "keras/x"]
)
def test_errors_name_the_model(script, name, capsys):
    with pytest.raises(SystemExit):
        script("convert")(["--models", name])
    assert f"--models {name}: " in capsys.readouterr().err


def test_timm_is_left_out_where_it_is_missing(script, monkeypatch, refused):
    main, module = script("convert"), sys.modules["experiments_convert"]
    assert module.Config().models == module.MODELS
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert module.Config().models == tuple(name for name in module.MODELS if "timm" not in name)
    monkeypatch.setattr("mgic_geo.extras.find_spec", lambda name: None)
    message = "--models timm/resnet26t: it needs timm; install the extra: pip install 'mgic-geo[dev]'"
    assert message in refused(main, ["--models", "timm/resnet26t"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group-size", "0"], "error: --group-size is 0; give 1 or more\n"),
        (["--models"], "error: --models is empty; give some of torchvision/resnet18"),
        (["--image-size", "0"], "error: --image-size is 0; give 32 or more\n"),
        (["--no-check", "--output", "."], "error: --output . is a folder; name a file in it"),
    ],
)
def test_bad_values_are_refused(script, refused, flags, message):
    assert refused(script("convert"), ["--models", "pyg/GCN", *flags]).startswith(message)


def test_another_way_to_begin_is_refused(script, refused):
    assert "--init" in refused(script("convert"), ["--init", "foo"])
