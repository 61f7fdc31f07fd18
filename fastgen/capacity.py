"""How much memory and disk space this process may still use, as far as the system says so."""

import os
import shutil
from pathlib import Path

GIB = 1 << 30


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can take without pushing others out, or None where nobody says (no Linux).

    The smallest of what the machine has and what the control groups of this process allow: a batch scheduler gives a
    job less than the machine has. Memory that only caches files counts as free.

    Args:
        root: where /proc and /sys are.
    """
    try:
        text = (root / "proc/meminfo").read_text()
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:")]
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2, one tree
            free += _group_limits(root / "sys/fs/cgroup", name, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            free += _group_limits(base, name, "memory.limit_in_bytes", "memory.usage_in_bytes")
    return min(free, default=None)


def _group_limits(base: Path, name: str, limit: str, usage: str) -> list[int]:
    """What a control group and the groups around it leave free; those without a limit say nothing."""
    found = []
    place = base / name.lstrip("/")
    for folder in (place, *place.parents):
        try:
            allowed, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # inside a container, the groups around it are not there
            allowed, used, stat = "max", 0, {}
        if allowed != "max":
            found.append(max(0, int(allowed) - used + int(stat.get("inactive_file", 0))))
        if folder == base:
            break
    return found


def free_disk(path: Path) -> int:
    """Bytes that this user can still write where `path` is or will be; quotas are not seen."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def size_text(count: float) -> str:
    """A number of bytes for a message, such as `3.2 GiB` or `17 MiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.2g} MiB"
