from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import MGICMLP, MGICLinear


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.booleans())
def test_never_has_more_parameters_than_dense_layers(widths, bias):
    mlp = MGICMLP(widths, 4, 4, bias=bias)
    dense = sum((a + bias) * b for a, b in pairwise(widths))
    assert sum(p.numel() for p in mlp.parameters()) <= dense
    assert mlp(torch.randn(2, 3, widths[0])).shape == (2, 3, widths[-1])


def test_wide_layers_are_multigrid_and_narrow_ones_are_not():
    mlp = MGICMLP([3, 128, 128, 10], 16, 16, norm=nn.LayerNorm, dropout=0.5)
    kinds = [type(layer) for layer in mlp.layers]
    hidden = [nn.LayerNorm, nn.ReLU, nn.Dropout]
    assert kinds == [nn.Linear, *hidden, MGICLinear, *hidden, nn.Linear]
    assert "MGICLinear(128, 128" in repr(mlp)
    plain = MGICMLP([8, 8, 8], act=None)
    assert [type(layer) for layer in plain.layers] == [nn.Linear, nn.Linear]


def test_learns_and_resets():
    torch.manual_seed(0)
    mlp = MGICMLP([64, 64, 64, 1], 8, 8)
    x = torch.randn(64, 64)
    y = x[:, :1] * x[:, 40:41]
    optimizer = torch.optim.Adam(mlp.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = (mlp(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    before = mlp.layers[0].cycle.blocks[0].weight.clone()
    mlp.reset_parameters()
    assert not torch.equal(mlp.layers[0].cycle.blocks[0].weight, before)


def test_one_width_is_no_layer():
    with pytest.raises(ValueError, match=r"widths needs .* got \[64\]"):
        MGICMLP([64])
