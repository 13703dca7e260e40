"""All parts have a name, and what is missing is said once."""

from typing import get_args

import pytest

from mgic_geo.benchmark import PARTS, Config, Part, missing, suite


def test_parts_are_those_of_the_configuration():
    assert tuple(PARTS) == get_args(Part)
    assert (*Config().parts, "layers") == get_args(Part)


@pytest.mark.parametrize("there", [True, False])
def test_missing(monkeypatch, there):
    monkeypatch.setattr(suite, "installed", lambda package: there)
    monkeypatch.setattr(suite, "cluster_runs", lambda device: False)
    lines = missing("cpu")
    assert lines[0].startswith(f"torch-cluster {'does not run here' if there else 'is not installed'}:")
    assert len(lines) == (1 if there else 3)
    monkeypatch.setattr(suite, "cluster_runs", lambda device: True)
    assert len(missing("cpu")) == (0 if there else 2)
