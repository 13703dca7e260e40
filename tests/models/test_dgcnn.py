import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.data import Batch, Data

from mgic_geo import Restriction, create_model
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.mgic_conv import MGICGraphConv
from mgic_geo.models import DGCNN

SMALL = {"widths": (8, 8, 16), "embedding": 12, "hidden": (10,), "group_size": 4, "coarse_size": 4, "k": 5}


def small(**kwargs):
    torch.manual_seed(0)
    return DGCNN(**{**SMALL, **kwargs})


@pytest.mark.parametrize("conv", ["mgic", "edge", "SAGEConv", "GCNConv", pyg.GATv2Conv])
def test_classifies_and_trains(conv):
    model = small(num_classes=4, conv=conv)
    logits = model(torch.randn(3, 20, 3))
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(("init", "negative"), [("random", False), ("average", False), ("signed", True)])
def test_starts_of_the_transfers_are_as_documented(init, negative):
    assert f'``"{init}"``' in (DGCNN.__doc__ or "")
    rows = [p for name, p in small(transfer_init=init).named_parameters() if "restrictions" in name]
    assert [bool((p < 0).any()) for p in rows] == [negative] * len(rows) != []


def test_transfers_start_as_those_of_the_layer():
    starts = {m.init for m in small().modules() if isinstance(m, Restriction)}
    assert starts == {"signed"}


@pytest.mark.parametrize("wrapped", ["edge", "SAGEConv"])
def test_mgic_wraps_any_layer_after_a_dense_first_block(wrapped):
    model = small(conv="mgic", wrapped=wrapped)
    assert not isinstance(model.blocks[0], MGICGraphConv)
    assert all(isinstance(block, MGICGraphConv) for block in list(model.blocks)[1:])
    assert model(torch.randn(2, 20, 3)).shape == (2, 10)


def test_the_papers_sizes():
    model = create_model("mgic_dgcnn", num_classes=10, group_size=16, coarse_size=32)
    assert [block.out_channels for block in list(model.blocks)[1:]] == [64, 128, 256]
    assert sum(p.numel() for p in model.parameters()) == 95_690
    dense = create_model("dgcnn", num_classes=10)
    assert all(isinstance(block.conv, EdgeConv) for block in dense.blocks)
    assert sum(p.numel() for p in dense.parameters()) == 137_610


@pytest.mark.parametrize("conv", ["mgic", "edge"])
def test_equals_the_slow_twin(conv):
    model = small(conv=conv).double().eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for value in (module.weight.data, module.bias.data, module.running_mean):
                value.copy_(torch.randn(value.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    clouds = torch.randn(2, 30, 3, dtype=torch.double)
    torch.testing.assert_close(model(clouds), oracles.dgcnn(model, clouds))


def test_dropout_works_in_training_only():
    model = small(dropout=0.9)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.9]
    features = torch.randn(1, 10)
    assert torch.equal(model.eval().hidden[-1](features), features)
    assert int((model.train().hidden[-1](features) == 0).sum()) > 3


def test_pyg_layers_are_normalised_and_activated():
    block = small(conv="SAGEConv").blocks[0]
    x, graph = torch.randn(30, 3), torch.randint(30, (2, 90))
    out = block.train()(x, graph)
    assert bool((out < 0).any())
    inner = torch.where(out < 0, out / 0.2, out)
    torch.testing.assert_close(inner.mean(0), torch.zeros(8), atol=1e-5, rtol=0)


def test_exports_with_the_graph_inside():
    model = small().eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (torch.randn(2, 20, 3),), dynamic_shapes=({0: batch},))
    for clouds in (1, 2, 5):
        points = torch.randn(clouds, 20, 3)
        torch.testing.assert_close(exported.module()(points), model(points))


@pytest.mark.parametrize("conv", ["mgic", "edge", "SAGEConv"])
def test_dense_clouds_batches_and_data_agree(conv):
    model = small(conv=conv).eval()
    clouds = torch.randn(3, 20, 3)
    logits = model(clouds)
    flat, batch = clouds.view(60, 3), torch.arange(3).repeat_interleave(20)
    torch.testing.assert_close(model(flat, batch), logits)
    data = Batch.from_data_list([Data(pos=cloud) for cloud in clouds])
    torch.testing.assert_close(model(data), logits)
    torch.testing.assert_close(model(Data(pos=clouds[0])), logits[:1])
    torch.testing.assert_close(model(clouds[0]), logits[:1])


def test_clouds_of_unequal_size():
    model = small().eval()
    first, second = torch.randn(20, 3), torch.randn(13, 3)
    both = model(torch.cat([first, second]), torch.tensor([0] * 20 + [1] * 13))
    torch.testing.assert_close(both, torch.cat([model(first), model(second)]))


def test_order_of_points_does_not_matter():
    model = small().double().eval()
    cloud = torch.randn(1, 30, 3, dtype=torch.double)
    torch.testing.assert_close(model(cloud[:, torch.randperm(30)]), model(cloud))


def test_features_and_classifier():
    model = small(num_classes=4)
    clouds = torch.randn(2, 20, 3)
    assert model.eval().forward_features(clouds).shape == (2, model.num_features) == (2, 24)
    model.reset_classifier(7)
    assert model(clouds).shape == (2, 7)
    model.reset_classifier(0)
    assert model(clouds).shape == (2, 10)
    assert isinstance(model.classifier, nn.Identity)
    double = small().double().eval()
    double.reset_classifier(3)
    assert double(clouds.double()).dtype == torch.float64


def test_more_features_than_coordinates():
    assert small(in_channels=6)(torch.randn(2, 20, 6)).shape == (2, 10)


def test_a_state_dict_goes_round():
    model, other = small(), small()
    other.load_state_dict(model.state_dict())
    clouds = torch.randn(2, 20, 3)
    assert torch.equal(other.eval()(clouds), model.eval()(clouds))


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match=r"layer of torch_geometric\.nn.*got 'nonsense'"):
        small(conv="nonsense")
    with pytest.raises(ValueError, match=r"\(B, N, 3\) or \(N, 3\) .*got shape \(2, 20, 4\)"):
        small()(torch.randn(2, 20, 4))
    with pytest.raises(ValueError, match=r"floating-point values, got .* of torch\.int64"):
        small()(torch.zeros(2, 20, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 20, 3\)"):
        small()(torch.randn(1, 2, 20, 3))
    with pytest.raises(ValueError, match="widths must name at least one"):
        small(widths=())
    with pytest.raises(ValueError, match="k must be an integer"):
        small(k=0)
    with pytest.raises(ValueError, match="leave flow out"):
        small(conv="SAGEConv", flow="target_to_source")
    full, empty = Data(pos=torch.randn(9, 3)), Data(pos=torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"cloud indices of 0 or more as int64, got torch\.float32"):
        small()(torch.randn(20, 3), torch.zeros(20))
    with pytest.raises(ValueError, match=r"one cloud index a node: 20 nodes, shape \(19,\)"):
        small()(torch.randn(20, 3), torch.zeros(19, dtype=torch.long))
    with pytest.raises(ValueError, match="cloud 1 of the batch has no points"):
        small()(Batch.from_data_list([full, empty, full]))
    with pytest.raises(ValueError, match="cloud 1 of the batch has no points"):
        small()(Batch.from_data_list([full, empty]))
    with pytest.raises(ValueError, match=r"Data\(pos=points\)"):
        small()(Data(x=torch.randn(20, 3)))
    with pytest.raises(ValueError, match="k=5 neighbours"):
        small()(torch.randn(2, 4, 3))
    with pytest.raises(ValueError, match="num_classes must be 0 or more"):
        small(num_classes=-1)
