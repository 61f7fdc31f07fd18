"""What a benchmark ran on, without anything that names the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def hardware(*packages: str) -> dict[str, Any]:
    """Processor, GPU, cores, load and versions.

    Args:
        packages: distributions whose version matters; one that is not installed is left out.
    """
    found: dict[str, Any] = {"cpu": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    found["load_average"] = round(os.getloadavg()[0], 1)
    return found | versions(*packages) | _gpu()


def versions(*packages: str) -> dict[str, str]:
    """Package -> version here; one that is not installed is left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _gpu() -> dict[str, str]:
    try:
        import torch
    except ImportError:
        return {}
    return {"gpu": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else {}
