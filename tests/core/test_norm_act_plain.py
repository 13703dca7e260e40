"""Normalisation, activation and residual in torch's operators."""

import pytest
import torch
from torch import nn

from mgic_geo.core.norm_act import norm_act


@pytest.mark.parametrize("beside", [False, True])
def test_without_a_normalisation_an_activation_in_place_leaves_the_input(beside):
    x = torch.randn(6, 4)
    before = x.clone()
    out = norm_act(x, nn.Identity(), nn.ReLU(inplace=True), x if beside else None)
    assert torch.equal(x, before)
    assert torch.equal(out, before.relu() + (before if beside else 0))
