"""Free memory and disk as the system tells them, from the files that Linux has."""

import os
import shutil
from pathlib import Path

import pytest

from fastgen.capacity import GIB, free_disk, free_memory, size_text


@pytest.fixture
def root(tmp_path):
    """A machine with 8 GiB available and no control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\nSwapFree: 5 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("")
    return tmp_path


def group(root, name, files):
    folder = root / "sys/fs/cgroup" / name
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_text(f"{content}\n")


def test_without_limits_the_machine_decides(root):
    assert free_memory(root) == 8 * GIB


def test_a_group_of_version_2_and_those_around_it(root):
    (root / "proc/self/cgroup").write_text("0::/slurm/job\n")
    group(root, "slurm", {"memory.max": 4 * GIB, "memory.current": GIB, "memory.stat": "anon 1\ninactive_file 0"})
    assert free_memory(root) == 3 * GIB
    group(root, "slurm/job", {"memory.max": "max", "memory.current": GIB, "memory.stat": "inactive_file 0"})
    assert free_memory(root) == 3 * GIB
    (root / "sys/fs/cgroup/slurm/job/memory.max").write_text(str(2 * GIB))
    assert free_memory(root) == GIB
    (root / "sys/fs/cgroup/slurm/job/memory.stat").write_text(f"inactive_file {GIB // 2}\n")
    assert free_memory(root) == 3 * GIB // 2, "what only caches files is free"


def test_a_group_of_version_1(root):
    (root / "proc/self/cgroup").write_text("4:memory:/job\n3:cpuset:/\n0::/\n")
    files = {"memory.limit_in_bytes": 2 * GIB, "memory.usage_in_bytes": GIB, "memory.stat": "inactive_file 0"}
    group(root, "memory/job", files)
    assert free_memory(root) == GIB
    (root / "sys/fs/cgroup/memory/job/memory.usage_in_bytes").write_text(str(3 * GIB))
    assert free_memory(root) == 0


def test_no_linux_says_nothing(tmp_path):
    assert free_memory(tmp_path) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="no Linux")
def test_this_machine_says_something_that_can_be():
    assert 0 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    total = shutil.disk_usage(tmp_path).total
    assert 0 < free_disk(Path("engines/none/yet")) <= total and 0 < free_disk(tmp_path) <= total


@pytest.mark.parametrize(("count", "text"), [(3.25 * GIB, "3.2 GiB"), (GIB // 64, "16 MiB"), (0, "0 MiB")])
def test_numbers_for_people(count, text):
    assert size_text(count) == text
