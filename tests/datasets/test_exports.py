import subprocess
import sys

import pytest

import mgic_geo.datasets as datasets


def test_point_clouds_do_not_need_torchvision():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from mgic_geo.datasets import CloudLoader, ImageLoader, load_clouds, load_images, load_camvid"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_late_names_are_there():
    for name in datasets._LATER:
        assert getattr(datasets, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'load_mnist'"):
        datasets.load_mnist  # noqa: B018
