import subprocess
import sys

import pytest

from mgic_geo.extras import needs


def test_what_is_missing_is_named_with_the_remedy():
    needs("this", "train", "torch", "json")
    with pytest.raises(ModuleNotFoundError) as caught:
        needs("mgic_geo.datasets", "train", "json", "no_such_a", "torch", "no_such_b")
    wanted = "mgic_geo.datasets needs no_such_a, no_such_b; install the extra: pip install 'mgic-geo[train]'"
    assert str(caught.value) == wanted
    assert caught.value.name == "no_such_a"


PROGRAM = """
import importlib.util
find, missing = importlib.util.find_spec, "h5py"
importlib.util.find_spec = lambda name, *rest: None if name == missing else find(name, *rest)
import mgic_geo
for missing, statement in (
    ("h5py", "from mgic_geo.datasets import read_clouds"),
    ("torchvision", "from mgic_geo.datasets import load_cityscapes"),
    ("tyro", "import mgic_geo.training.command_line"),
    ("matplotlib", "import mgic_geo.paper.figure3"),
):
    try:
        exec(statement)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_the_core_alone_says_which_extra():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"mgic_geo.{what}; install the extra: pip install 'mgic-geo[train]'"
        for what in (
            "datasets needs h5py",
            "datasets.load_cityscapes needs torchvision",
            "training needs tyro",
            "paper needs matplotlib",
        )
    ]
