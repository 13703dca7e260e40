import json
import math
from pathlib import Path

import pytest
import torch

from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation
from mgic_geo.training.segmentation.report import class_table, summarize_segmenter


@pytest.fixture
def result() -> SegmentationEvaluation:
    counts = torch.tensor([[[6, 2, 0], [0, 4, 0], [0, 0, 0]]])
    return SegmentationEvaluation(counts, ("sky", "road", "car"))


def test_table_and_file_say_the_same(tmp_path: Path, result: SegmentationEvaluation) -> None:
    history = [{"seconds": seconds, "val_miou": 0.5} for seconds in (9.0, 2.0, 2.5)]
    figures = {"parameters": 95912, "multiply_adds": 12_345_678, "device": torch.device("cpu")}
    summary = summarize_segmenter("lraspp", "camvid.zip", result, history=history, **figures)
    table = dict(line.split("  ", 1) for line in summary.table().splitlines())
    assert table["mIoU"].strip() == "70.8 % ± – (one standard error, 1 image)"
    assert table["pixel accuracy"].strip() == "83.3 %"
    assert table["mean class accuracy"].strip() == "87.5 %"
    assert table["mIoU, held out of train"].strip() == "50.0 %, after the last epoch"
    assert table["epochs"].strip() == "3, 2.5 s each; the last one is reported"
    summary.save(tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text  # which is not JSON
    saved = json.loads(text)
    assert saved["standard_error"] is None
    assert saved["class_iou"] == {"sky": 0.75, "road": pytest.approx(2 / 3), "car": None}
    assert saved["miou"] == pytest.approx((0.75 + 2 / 3) / 2)


def test_held_out_images_without_a_label(result: SegmentationEvaluation) -> None:
    history = [{"seconds": 2.0, "val_miou": math.nan}]
    figures = {"parameters": 95912, "multiply_adds": 12_345_678, "device": torch.device("cpu")}
    summary = summarize_segmenter("lraspp", "camvid.zip", result, history=history, **figures)
    assert summary.scores()["mIoU, held out of train"] == "–, after the last epoch"


def test_table_of_classes(result: SegmentationEvaluation) -> None:
    assert class_table(result).splitlines() == [
        "| class | IoU % | found % | pixels % |",
        "|-------|------:|--------:|---------:|",
        "| sky   |  75.0 |    75.0 |     66.7 |",
        "| road  |  66.7 |   100.0 |     33.3 |",
        "| car   |     – |       – |      0.0 |",
        "| mean  |  70.8 |    87.5 |          |",
    ]
