"""The machine and the versions that figures are of."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_machine", "full_float32", "processor"]

PACKAGES = ("mgic-geo", "torch", "torch-geometric", "torch-cluster", "torchvision", "timm")


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def full_float32() -> None:
    """Let no product and no convolution of float32 round to TF32, for the whole process.

    torch's default on CUDA is TF32 in convolutions alone: those who compute the same by products would be
    compared with less exact arithmetic, and the floor be a rate that products do not have.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def describe_machine(device: str) -> dict[str, Any]:
    """Names of processor, GPU and system, cores and threads, clocks as they are now, versions.

    Args:
        device: ``"cpu"`` or ``"cuda"``; with the latter the GPU's figures are among them.
    """
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES} | {"torch": torch.__version__},
    }
    if hasattr(os, "getloadavg"):
        found["load"] = os.getloadavg()[0]
    if device.startswith("cuda"):
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": gpu.name,
            "gpu_memory": gpu.total_memory,
            "cuda": torch.version.cuda,
            "tf32": {
                "products": torch.backends.cuda.matmul.allow_tf32,
                "convolutions": torch.backends.cudnn.allow_tf32,
            },
            "clocks": _clocks(),
        }
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clocks() -> str | None:
    """Clocks of the GPU and of its memory as the driver's tool tells them, at work and at most."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem"
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return run.stdout.strip() if run.returncode == 0 else None
