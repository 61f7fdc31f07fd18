"""`fastgen submit` before SLURM has a say: what it refuses on the login node, and what it writes."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastgen.cli import main
from fastgen.cluster.submit import last_submission
from fastgen.shards.layout import Layout

BANK = Path(__file__).resolve().parents[2] / "prompts" / "pets.jsonl"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with an engine, and a PATH without SLURM."""
    (tmp_path / "engines" / "mini").mkdir(parents=True)
    (tmp_path / "engines" / "mini" / "engine.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def submit(*words: object) -> Result:
    return CliRunner().invoke(main, ["submit", *map(str, words)], catch_exceptions=False)


def command(name: str, folder: Path, text: str) -> None:
    """A stand-in for one of SLURM's commands."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_dry_run_prints_the_script_and_writes_nothing(folder):
    result = submit("--bank", BANK, "--limit", 30, "--array", 3, "--tasks", 2, "--gpus", 0, "--dry-run")
    assert result.exit_code == 0 and result.output.startswith("#!/bin/bash\n#SBATCH --job-name=fastgen-pets\n")
    assert f"run --bank {BANK} --limit 30 --world 6 &\n" in result.output
    assert sorted(path.name for path in folder.iterdir()) == ["engines"]


def test_the_script_is_kept_and_the_job_noted(folder):
    command("sbatch", folder, 'test -s out/pets/slurm/job.sh && echo "77;cluster"')
    result = submit("--bank", BANK, "--array", 3, "--program", "apptainer exec --nv 'my image.sif' fastgen")
    assert result.exit_code == 0, result.output
    assert result.output == "job 77 submitted: out/pets/slurm/job.sh; fastgen status out/pets follows it\n"
    script = (folder / "out/pets/slurm/job.sh").read_text()
    assert f"    apptainer exec --nv 'my image.sif' fastgen run --bank {BANK} --world 3 &\n" in script
    note = last_submission(Layout(folder / "out/pets"))
    assert note is not None and (note["job"], note["array"], note["tasks"]) == ("77", 3, 1)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--bank", BANK, "--rank", 1, "--world", 2], "got --rank: fastgen submit numbers the processes itself"),
        (["--bank", BANK, "--world", 2], "got --world"),
        (["--bank", BANK, "--no-such"], "No such option"),
        (["--bank", "no.jsonl"], "'no.jsonl' does not exist"),
        (["--bank", BANK, "--limit", "x"], "'x' is not a valid integer"),
        (["--bank", "bad.jsonl"], "bad.jsonl:1: "),
        (["--bank", BANK, "--engine", "other"], "--engine other: no folder with an engine.json"),
        (["--bank", BANK, "--array", 0], "got --array 0"),
        (["--bank", BANK, "--program", " "], "got an empty --program"),
        (["--bank", BANK], "there is no sbatch on this machine"),
    ],
)
def test_what_cannot_work_is_refused_before_it_waits(folder, words, message):
    (folder / "bad.jsonl").write_text('{"class": "pug"}\n')
    result = submit(*words)
    assert result.exit_code == 2 and message in result.output
    assert not (folder / "out").exists()


def test_an_engine_that_a_job_still_builds_need_not_be_there(folder):
    shutil.rmtree(folder / "engines")
    assert submit("--bank", BANK, "--engine", "engines/new", "--after", 7, "--dry-run").exit_code == 0
    assert "fastgen build" in submit("--bank", BANK, "--dry-run").output


def test_sbatch_says_why_it_refuses(folder):
    command("sbatch", folder, "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    result = submit("--bank", BANK, "--partition", "gpu")
    assert result.exit_code == 2
    assert result.output == "fastgen: sbatch refuses out/pets/slurm/job.sh: invalid partition specified: gpu\n"
    assert last_submission(Layout(folder / "out/pets")) is None


def test_another_number_of_processes_is_refused_and_so_is_a_second_job(folder):
    command("sbatch", folder, "echo 77")
    command("squeue", folder, "echo '2|RUNNING|n0'; echo '0|PENDING|(Resources)'")
    assert submit("--bank", BANK, "--array", 3).exit_code == 0
    result = submit("--bank", BANK, "--array", 3)
    assert result.exit_code == 2
    assert "job 77 is still in the queue (PENDING, RUNNING)" in result.output and "scancel 77" in result.output
    command("squeue", folder, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    (folder / "out/pets/plan.json").write_text(json.dumps({"fastgen_plan": 1, "world": 3}))
    assert submit("--bank", BANK, "--array", 3).exit_code == 0
    result = submit("--bank", BANK, "--array", 2, "--tasks", 2)
    assert result.exit_code == 2 and "was started with 3 processes, this command has 2 x 2" in result.output
