import json

import pytest

SMALL = [
    "--epochs=2",
    "--seeds=2",
    "--hidden=16",
    "--layers=3",
    "--group-size=4",
    "--coarse-size=8",
    "--heads=2",
]


@pytest.fixture
def main(script, monkeypatch):
    import mgic_geo.datasets.graphs as made

    run = script("graphs")
    module = run.__globals__
    monkeypatch.setitem(module, "block_model", lambda seed: made.block_model(seed, nodes=90, channels=12))
    monkeypatch.setitem(module, "mixing_graphs", lambda seed: made.mixing_graphs(seed, graphs=24, nodes=8))
    return lambda arguments: run(["--accelerator", "cpu", *arguments])


@pytest.mark.parametrize("data", ["nodes", "Graphs"])
def test_every_model_trains_two_steps(data, main, tmp_path, capsys):
    main([*SMALL, "--data", data, "--output", str(tmp_path), "--batch-size", "8"])
    head, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == head
    results = json.loads((tmp_path / "results.json").read_text())
    told = [f"{name}, seed {seed}" for name, runs in results.items() for seed in runs]
    assert [line.partition(":")[0] for line in captured.err.splitlines()] == told
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(results)
    assert len(results) == 9
    for runs in results.values():
        assert set(runs) == {"0", "1"}
        assert all(0 <= run["accuracy"] <= 1 for run in runs.values())
    cost = {name: runs["0"]["parameters"] for name, runs in results.items()}
    assert all(cost[f"MGIC{name}"] != cost[name] for name in ("GCN", "GraphSAGE", "GAT", "GIN"))
    assert all("±" in row for row in rows)


def test_resumes_with_the_models_that_are_missing(main, tmp_path, refused):
    options = [*SMALL, "--models", "MLP", "MGICGCN", "--precision", "bf16-mixed", "--output", str(tmp_path)]
    main(options)
    record = tmp_path / "results.json"
    whole = json.loads(record.read_text())
    record.write_text(json.dumps({"MLP": whole["MLP"], "MGICGCN": {"0": whole["MGICGCN"]["0"]}}))
    assert "already holds a run" in refused(main, options)
    main([*options, "--resume"])
    again = json.loads(record.read_text())
    assert again["MLP"] == whole["MLP"]
    assert again["MGICGCN"]["1"]["accuracy"] == whole["MGICGCN"]["1"]["accuracy"]


def test_help_promises_what_it_does(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "bit for bit" not in text
    assert "--devices" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "GCNII"], "--models names GCNII; give some of MLP, GCN, MGICGCN"),
        (["--models"], "--models is empty; give some of MLP, GCN"),
        (["--lr", "-1", "--weight-decay", "-1"], "--lr is -1.0; give a positive number"),
        (["--lr", "nan", "--weight-decay", "-1"], "--weight-decay is -1.0; give 0 or more"),
        ([*SMALL, "--lr", "1e9"], "--models MLP: training diverged; lower --lr, which is 1e+09"),
        (["--hidden", "0"], "--hidden is 0; give 1 or more"),
        (["--dropout", "1"], "--dropout is 1.0; give 0 or more, under 1"),
        ([*SMALL, "--heads", "8", "--models", "MGICGAT"], "--models MGICGAT: heads=8 must divide"),
    ],
)
def test_bad_values_are_refused(arguments, message, main, refused, tmp_path):
    assert message in refused(main, [*arguments, "--output", str(tmp_path / "out")])
