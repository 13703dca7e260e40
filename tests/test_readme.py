"""The README's examples run as printed, and the scripts it names are there."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, names)
    graph = torch.randint(30, (2, 90))
    logits = names["Net"]()(torch.randn(30, 16), graph, torch.arange(3).repeat_interleave(10))
    assert logits.shape == (3, 10)
    assert names["features"].shape == (8, 1024, 64)
    assert names["logits"].shape == (2, 10)
    assert (tmp_path / "model.onnx").stat().st_size > 3e5
    printed = capsys.readouterr().out
    assert "multiply-adds: k-NN 75.4 %, maps 19.0 %" in printed
    assert "torch.Size([50, 7]) 7" in printed
    assert "128 in 8 groups -> 64 in 4 groups -> 32 dense" in README
    assert "128 in 8 groups -> 64 in 4 groups -> 32 dense" in repr(names["Net"]())


def test_scripts_exist():
    scripts = re.findall(r"experiments/\w+\.py", README)
    assert len(scripts) > 5
    for script in scripts:
        assert (ROOT / script).exists(), script


def test_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
