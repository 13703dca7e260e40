"""Inference is timed in fresh processes, and the figures agree with one another."""

import json


def test_inference(script, tmp_path, capsys):
    file = tmp_path / "times.json"
    flags = ["--models", "mgic_resnet56_g8_c16", "--batch-size", "2", "--rounds", "1", "--processes", "1"]
    script("inference")([*flags, "--output", str(file)])
    (((plain, fused),),) = json.loads(file.read_text()).values()
    assert min(plain, fused) > 0
    row = f"| mgic_resnet56_g8_c16 | {plain:.0f} | {fused:.0f} | {plain / fused:.2f} |"
    assert row in capsys.readouterr().out
