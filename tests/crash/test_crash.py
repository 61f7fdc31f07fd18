"""A run that is killed at any moment, by any signal, alone or with other ranks, ends with the same images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def killed(kills, path):
    """Run the harness in a process of its own: it forks, and this one has threads."""
    command = [sys.executable, "-m", "tests.crash.harness", "--kills", str(kills), "--seed", "3", "--out", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def test_eight_kills(tmp_path):
    result = killed(8, tmp_path / "result.json")
    assert result["kills"] >= 8 and result["of_three_ranks_at_once"] and len(result["by_signal"]) > 1


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    result = killed(200, tmp_path / "result.json")
    assert result["kills"] >= 200 and result["identical"] == f"{result['kills']} of {result['kills']}"
    assert len(result["by_signal"]) == 8 and result["of_three_ranks_at_once"] > 50
