import json
from pathlib import Path

import torch

from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.report import summarize


def test_table_and_file_say_the_same(tmp_path: Path) -> None:
    result = Evaluation(torch.eye(2)[[0, 1, 1, 1]], torch.tensor([0, 1, 1, 0]), ("a", "b"))
    cpu = torch.device("cpu")
    history = [{"seconds": seconds, "val_accuracy": 0.5} for seconds in (9.0, 2.0, 2.5)]
    figures = {"parameters": 95912, "multiply_adds": 12_345_678, "device": cpu, "history": history}
    summary = summarize("mgic_dgcnn", "shapes", result, **figures)
    table = dict(line.split("  ", 1) for line in summary.table().splitlines())
    assert table["test accuracy"].split() == [
        "75.0",
        "%",
        "±",
        "21.7",
        "(one",
        "standard",
        "error,",
        "4",
        "samples)",
    ]
    assert table["parameters"].strip() == "95,912"
    assert table["multiply-adds"].strip() == "12.3 M per sample"
    assert table["validation accuracy"].strip() == "50.0 %, after the last epoch"
    assert table["epochs"].strip() == "3, 2.5 s each; the last one is reported"
    assert "torch 2" in table["versions"]
    summary.save(tmp_path / "summary.json")
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert (saved["test_accuracy"], saved["seconds_per_epoch"], saved["epochs"]) == (0.75, 2.5, 3)


def test_nothing_is_said_of_epochs_where_nothing_was_trained() -> None:
    result = Evaluation(torch.eye(2), torch.tensor([0, 1]), ("a", "b"))
    summary = summarize("dgcnn", "x.h5", result, parameters=1, multiply_adds=1, device=torch.device("cpu"))
    assert "epochs" not in summary.table()
    assert "validation" not in summary.table()


def test_top_5_is_said_from_20_classes_on() -> None:
    for classes, said in ((19, False), (20, True)):
        # The true class has the fifth rank in half of the samples, and the sixth in the others.
        logits = -torch.arange(classes).float().expand(4, -1)
        result = Evaluation(logits.softmax(1), torch.tensor([4, 5, 4, 5]), tuple(map(str, range(classes))))
        summary = summarize("m", "d", result, parameters=1, multiply_adds=1, device=torch.device("cpu"))
        assert ("top-5 accuracy       50.0 %" in summary.table()) == said
        assert summary.top5_accuracy == (0.5 if said else None)
