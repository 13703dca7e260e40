"""A state_dict survives a safetensors file, whatever its tensors look like in memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mgic_geo import MGICGraphConv, create_model, load_weights, save_weights
from mgic_geo.weights_file import read_metadata


def equal(model, other):
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_round_trip_by_us_and_by_safetensors_alone(tmp_path):
    model, other, plain = (create_model("resnet56", depths=(1, 1, 1)) for _ in range(3))
    file = save_weights(model, tmp_path / "new" / "w.safetensors", {"epoch": "3"})
    assert equal(load_weights(other, file), model)
    plain.load_state_dict(load_file(file))
    assert equal(plain, model)
    assert read_metadata(file) == {"epoch": "3"}


def test_tied_weights_and_views(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(2, 8))
    model[1].weight = model[0].weight
    both = torch.randn(8, 3)
    model[2].weight = nn.Parameter(both[:, 1:])  # a view that is not contiguous
    save_weights(model, tmp_path / "w")
    other = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(2, 8))
    other[1].weight = other[0].weight
    assert equal(load_weights(other, tmp_path / "w"), model)
    assert other[1].weight is other[0].weight


def test_channels_last_on_either_side(tmp_path):
    model = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "w")
    assert load_file(tmp_path / "w")["weight"].is_contiguous()
    other = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    assert equal(load_weights(other, tmp_path / "w"), model)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


def test_compiled_on_either_side(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inner = nn.Sequential(torch.compile(nn.Linear(4, 4)), nn.Linear(4, 2))
    for saved in (torch.compile(model), inner):
        save_weights(saved, tmp_path / "w")
        assert set(load_file(tmp_path / "w")) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    expected = load_file(tmp_path / "w")
    for other in (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.compile(model), inner):
        load_weights(other, tmp_path / "w")
        values = {name.replace("_orig_mod.", ""): value for name, value in other.state_dict().items()}
        assert all(torch.equal(values[name], expected[name]) for name in expected | values)
    save_file(dict(torch.compile(model).state_dict()), tmp_path / "raw")  # by somebody else
    load_weights(model, tmp_path / "raw")


@pytest.mark.parametrize("channels", [16, 32])  # 32 is the output's width, where nothing is mapped
def test_layers_that_take_their_width_from_the_first_input(tmp_path, channels):
    torch.manual_seed(0)
    lazy, settled = MGICGraphConv(-1, 32, conv="edge"), MGICGraphConv(-1, 32, conv="edge")
    x, graph = torch.randn(9, channels), torch.randint(9, (2, 20))
    with pytest.raises(ValueError, match=r"the width of shortcut\.weight is not settled"):
        save_weights(lazy, tmp_path / "w")
    settled(x, graph)
    save_weights(settled, tmp_path / "w")
    torch.testing.assert_close(
        load_weights(lazy, tmp_path / "w").eval()(x, graph), settled.eval()(x, graph), rtol=0, atol=0
    )


def test_errors_name_the_file_or_the_part(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone"):
        load_weights(nn.Linear(2, 2), tmp_path / "gone")
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk is no safetensors file"):
        load_weights(nn.Linear(2, 2), tmp_path / "junk")
    save_weights(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        load_weights(nn.Linear(3, 2), tmp_path / "w")
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"bias"'):
        load_weights(nn.Linear(2, 2, bias=False), tmp_path / "w")


def test_what_is_not_strict_is_said(tmp_path):
    save_weights(nn.Linear(2, 2), tmp_path / "w")
    with pytest.warns(UserWarning, match="not in the model, so left out: bias"):
        load_weights(nn.Linear(2, 2, bias=False), tmp_path / "w", strict=False)
    other = nn.Linear(2, 2)
    other.more = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    with pytest.warns(
        UserWarning, match="left as they were: more.0.weight, more.0.bias, more.1.weight and 1 more"
    ):
        load_weights(other, tmp_path / "w", strict=False)
    with pytest.raises(ValueError, match=r"no name in .* there 'bias', for example, here '0.weight'"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w", strict=False)


def test_states_that_are_no_tensors_are_refused(tmp_path):
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

    with pytest.raises(ValueError, match="_extra_state is dict; safetensors files hold tensors only"):
        save_weights(Stateful(2, 2), tmp_path / "w")
