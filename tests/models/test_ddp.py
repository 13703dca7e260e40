"""DistributedDataParallel: two processes with a graph each have the gradients of one with both graphs."""

import os
import subprocess
import sys

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
import mgic_geo
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.nn import GATv2Conv, Sequential

torch.set_default_dtype(torch.float64)  # a layer normalisation of three channels that agree is all rounding
dist.init_process_group("gloo")
rank = dist.get_rank()
sizes = dict(group_size=4, coarse_size=8)

def build():
    torch.manual_seed(0)
    hidden = mgic_geo.MGICGraphSAGE(8, 16, 3, **sizes, block_norm="layer_norm", jk="cat")
    last = mgic_geo.MGICGraphConv(16, 3, conv=GATv2Conv, **sizes, norm="layer_norm", min_levels=1)
    return Sequential("x, e", [(hidden, "x, e -> x"), (last, "x, e -> x")])

torch.manual_seed(1)
x, y = torch.randn(2, 10, 8), torch.randint(3, (2, 10))
edges = torch.randint(10, (2, 2, 30))
alone, model = build(), DistributedDataParallel(build())
one, two = torch.optim.SGD(alone.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.1)
both = torch.cat([edges[0], edges[1] + 10], dim=1)
for step in range(3):
    one.zero_grad(), two.zero_grad()
    F.cross_entropy(alone(x.flatten(0, 1), both), y.flatten()).backward()
    F.cross_entropy(model(x[rank], edges[rank]), y[rank]).backward()
    for (name, expected), p in zip(alone.named_parameters(), model.parameters()):
        assert p.grad.abs().max() > 0, name
        torch.testing.assert_close(p.grad, expected.grad, rtol=1e-7, atol=1e-10, msg=name)
    one.step(), two.step()
dist.barrier()
print("equal")
dist.destroy_process_group()
"""


def test_gradients_equal_those_of_one_process(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launcher, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("equal") == 2
