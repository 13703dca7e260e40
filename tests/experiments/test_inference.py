"""Inference is timed in fresh processes, and the figures agree with one another."""

import json

import pytest


def test_inference(script, tmp_path, capsys):
    file = tmp_path / "times.json"
    flags = ["--models", "mgic_resnet56_g8_c16", "--batch-size", "2", "--rounds", "1", "--processes", "1"]
    script("inference")([*flags, "--output", str(file)])
    (((plain, fused),),) = json.loads(file.read_text()).values()
    assert min(plain, fused) > 0
    row = f"| mgic_resnet56_g8_c16 | {plain:.0f} | {fused:.0f} | {plain / fused:.2f} |"
    assert row in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "mgic_dgcn"], "--models names mgic_dgcn, which there is not; try mgic_dgcnn"),
        (["--models"], "--models is empty; give some of "),
        (["--output", "."], "--output . is a folder; name a file in it"),
        (["--rounds", "0", "--processes", "-1"], "--rounds is 0; give 1 or more"),
        (["--rounds", "0", "--processes", "-1"], "--processes is -1; give 0 or more"),
        (["--batch-size", "-1"], "--batch-size is -1; give 0 or more"),
    ],
)
def test_bad_values_are_refused(script, refused, flags, message):
    assert message in refused(script("inference"), flags)


def test_the_help_names_no_default_of_none(script, capsys):
    with pytest.raises(SystemExit):
        script("inference")(["--help"])
    text = capsys.readouterr().out
    assert "--output PATH" in text
    assert "None" not in text
