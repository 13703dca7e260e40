import pytest
import torch
from torch_geometric.utils import degree, homophily

from mgic_geo.datasets import DownloadError, block_model, load_planetoid, load_tudataset, mixing_graphs


def test_block_model_is_what_it_says():
    data = block_model(0, nodes=1000, classes=5, channels=16, degree=6, homophily=0.5)
    data.validate()
    assert data.x.shape == (1000, 16)
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert set(data.y.tolist()) == set(range(5))
    assert abs(homophily(data.edge_index, data.y) - (0.5 + 0.5 / 5)) < 0.05
    assert abs(degree(data.edge_index[0], 1000).mean() - 6) < 0.3
    assert data.train_mask.sum() == 333
    assert not (data.train_mask & data.test_mask).any()


def test_seeds_decide():
    one, same, other = block_model(3), block_model(3), block_model(4)
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.edge_index, same.edge_index)
    assert not torch.equal(one.x, other.x)
    first, again = mixing_graphs(3, graphs=9), mixing_graphs(3, graphs=9)
    assert all(torch.equal(a.edge_index, b.edge_index) for a, b in zip(first, again, strict=True))


def test_only_edges_tell_the_class_of_mixing_graphs():
    graphs = mixing_graphs(0, graphs=400, nodes=32, colours=4, mixing=0.6)
    assert {graph.y.item() for graph in graphs} == set(range(4))
    counts = torch.zeros(4, 4)
    colours, edges = torch.zeros(4, 4), torch.zeros(4)
    for graph in graphs:
        colour = graph.x.argmax(1)
        difference = colour[graph.edge_index[0]] ^ colour[graph.edge_index[1]]
        counts[graph.y] += difference.bincount(minlength=4)[:4]
        colours[graph.y] += graph.x.sum(0)
        edges[graph.y] += graph.num_edges
    share = counts / counts.sum(1, keepdim=True)
    assert torch.equal(share.argmax(1), torch.arange(4))
    assert (share.diagonal() > 0.55).all()
    assert ((colours / colours.sum(1, keepdim=True) - 0.25).abs() < 0.02).all()
    assert (edges / edges.mean() - 1).abs().max() < 0.06


def test_bad_numbers_of_colours():
    with pytest.raises(ValueError, match="colours must be a power of two, got 6"):
        mixing_graphs(0, colours=6)


@pytest.mark.parametrize(
    ("load", "name", "base"), [(load_planetoid, "Cora", "Planetoid"), (load_tudataset, "MUTAG", "TUDataset")]
)
def test_without_network_the_error_says_what_to_do(load, name, base, monkeypatch, tmp_path):
    def fails(self):
        raise OSError("no route to host")

    from mgic_geo.datasets import graphs

    monkeypatch.setenv("MGIC_DATA", str(tmp_path))
    monkeypatch.setattr(getattr(graphs, base), "download", fails)
    with pytest.raises(DownloadError, match=rf"{name} is not in .*\(no route to host\).*MGIC_DATA"):
        load(name)
    assert not any(tmp_path.iterdir())  # PyG makes folders before it looks
