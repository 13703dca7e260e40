"""Every network is measured, the share is the MGIC network's, and the steps can be made elsewhere."""

import pickle

import pytest
from torch import nn

from mgic_geo.benchmark import peaks
from mgic_geo.benchmark.peaks import compare_memory
from mgic_geo.benchmark.points import DENSE, MGIC, PLAIN, PYG


@pytest.mark.parametrize("cluster", [True, False])
def test_memory(tiny, monkeypatch, cluster):
    sizes = {MGIC: 2**20, DENSE: 2**21, PLAIN: 7 * 2**20, PYG: 2**23}
    builds = []

    def peak_memory(build, device):
        builds.append(pickle.loads(pickle.dumps(build)))
        return sizes[build.args[0]]

    monkeypatch.setattr(peaks, "peak_memory", peak_memory)
    monkeypatch.setattr(peaks, "cluster_runs", lambda device: cluster)
    (report,) = compare_memory(tiny)
    assert [row["model"] for row in report.rows] == [*sizes][: 4 if cluster else 3]
    assert [row["ratio"] for row in report.rows[:3]] == [1, 2, 7]
    assert report.verdicts[0].met
    assert report.verdicts[0].measured == "1/7.0"
    assert f"| {PLAIN} | 7 | 7.0 ×; bar ≤ 0.167: met |" in report.text
    for step in builds[0]():
        step()


@pytest.mark.parametrize(("device", "first"), [("cpu", (2, 8)), ("cuda", (16, 24))])
def test_what_a_size_costs_once_is_not_measured_on_a_gpu(monkeypatch, device, first):
    monkeypatch.setattr(peaks, "NETWORKS", {"any": lambda k, widths: nn.Identity()})
    monkeypatch.setattr(peaks, "clouds", lambda *size: size[:2])
    monkeypatch.setattr(peaks, "training_step", lambda model, batch: batch)
    assert peaks.network_steps("any", 4, 16, 24, device) == (first, (16, 24))
