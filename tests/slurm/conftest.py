"""One SLURM per session in a folder of its own, one engine that two processes build at once, one uninterrupted run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, RUN, call, fastgen


@pytest.fixture(scope="session", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory):
    """Start a cluster of two nodes; SLURM_CONF leads every command of the session to it."""
    folder = tmp_path_factory.mktemp("slurm")
    before = dict(os.environ)
    call(ROOT / "hpc" / "local-slurm", "start", folder)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        del os.environ[name]
    os.environ |= {"SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
    # The jobs inherit all of it; this makes them run the code under test, wherever it is installed.
    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    yield folder
    subprocess.run([ROOT / "hpc" / "local-slurm", "stop", folder], timeout=60)
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="session")
def build_output(slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The embedded model's engine, built by two processes of one srun at the same moment, and what they print."""
    engine = tmp_path_factory.mktemp("engines") / "mini"
    command = ["srun", "--ntasks=2", sys.executable, "-m", "fastgen.cli", "build", "--batch", "1", "--out", str(engine)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return engine, done.stdout + done.stderr


@pytest.fixture(scope="session")
def engine(build_output: tuple[Path, str]) -> Path:
    """The engine folder; no run may change it."""
    return build_output[0]


@pytest.fixture(scope="session")
def uninterrupted(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of one process that nobody disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    fastgen("run", *RUN, "--engine", engine, "--out", out)
    return out
