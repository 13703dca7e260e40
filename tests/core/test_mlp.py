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
    without = MGICMLP([3, 128, 128, 10], 16, 16, bias=False)
    assert not any("bias" in name for name, _ in without.named_parameters())
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


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 2, 2), (3, 0)], ids=str)
def test_leading_dimensions_are_rows_to_every_normalisation(lead):
    torch.manual_seed(0)
    mlp = MGICMLP([16, 32, 32, 3], 8, 8, norm=nn.BatchNorm1d)
    mlp(3 * torch.randn(64, 16) + 1)  # statistics that are not trivial
    x = torch.randn(*lead, 16)
    out = mlp.eval()(x)
    assert out.shape == (*lead, 3)
    torch.testing.assert_close(out.reshape(-1, 3), mlp(x.reshape(-1, 16)))


def test_inputs_of_another_width_are_refused():
    for shape in ((), (2, 8), (32, 1)):
        with pytest.raises(ValueError, match=r"expected widths\[0\]=16 features .* got shape \("):
            MGICMLP([16, 32])(torch.randn(shape))
