"""The benchmarks on a small model: what they print and write, and that nobody's silence stalls them."""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.device import Session, take_turns
from bench.turns import Worker

ROOT = Path(__file__).resolve().parent.parent


def test_throughput_draws_the_same_images_as_the_peer_that_does_the_same_work(tiny_model, tmp_path):
    words = ["--model", str(tiny_model), "--backend", "torch", "--steps", "2", "--rows", "3", "--batch", "2"]
    words += ["--rounds", "1", "--repeats", "1", "--peers", "fastgen", "dalda", "--work", "work", "--out", "o.json"]
    command = [sys.executable, str(ROOT / "bench" / "throughput.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["results"].keys() == {"fastgen", "dalda"} and report["settings"]["precision"] == "fp32"
    assert report["results"]["dalda"]["over_dalda"] == 1 and report["results"]["fastgen"]["images_per_second"] > 0
    assert report["psnr_db"]["fastgen and dalda"] > 40


CONTENDER = """
import json, sys, time
kind = sys.argv[1]
if kind == "dies":
    sys.exit("no memory left")
print("loading", flush=True)
print(json.dumps({"ready_seconds": 0}), flush=True)
for line in sys.stdin:
    if kind == "hangs":
        time.sleep(600)
    print(json.dumps({"rows": int(line.split()[1]), "seconds": 0.5, "failed": 0}), flush=True)
"""


@pytest.fixture
def session(tmp_path):
    found = Session(tmp_path, tmp_path, budget=60)
    found.rows = 8
    yield found
    found.stop(*list(found.workers))


def test_turns_go_on_when_a_contender_dies_or_hangs(session, monkeypatch):
    ask = Session.ask
    monkeypatch.setattr(Session, "ask", lambda self, name, line, timeout: ask(self, name, line, timeout=2))
    names = ["good", "hangs", "dies", "sd15-diffusers"]
    for name in names:
        session.spawn(name, [sys.executable, "-c", CONTENDER, name], threads=1)
    session.waiting |= set(names)
    take_turns(session, names, {"good": 2, "hangs": 2, "dies": 2, "sd15-diffusers": 1}, keep=0)
    report = json.loads((session.out / "device.json").read_text())
    turns = [(turn["contender"], turn["images_per_second"], turn["rows"]) for turn in report["turns"]]
    assert sorted(turns) == [("good", 16, 8), ("good", 16, 8), ("sd15-diffusers", 8, 4)]
    failed = {part["part"]: part["failed"] for part in report["parts"] if "failed" in part and part["failed"]}
    assert "no answer after" in failed["hangs: draw"] and failed["dies: ready"] == "exit code 1: no memory left"


def test_no_turn_is_begun_that_the_budget_has_no_time_for(session):
    session.spawn("good", [sys.executable, "-c", CONTENDER, "good"], threads=1)
    session.waiting.add("good")
    session.budget = 5.0
    take_turns(session, ["good"], {"good": 9}, keep=4.0)
    assert session.report["turns"] == []


def test_a_worker_ends_with_all_it_started(tmp_path):
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); print('{}', flush=True);"
    command = [sys.executable, "-c", f"{code} sys.stdin.read()"]
    worker = Worker(command, log=tmp_path / "log", environment={}, folder=tmp_path)
    assert worker.answer(timeout=30) == {}
    child = Path("/proc") / worker.lines[0]
    assert not Path("/proc").is_dir() or child.is_dir()
    worker.stop()
    for _ in range(50):
        if not child.is_dir() or (child / "stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process that it started is still there")
    assert not worker.alive


def run_bench(name: str, *words: object) -> None:
    command = [sys.executable, str(ROOT / "bench" / name), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its tar files open
def test_loader_reads_the_same_images_from_all(tmp_path, monkeypatch):
    from bench import loader

    if find_spec("webdataset") is None:
        monkeypatch.delitem(loader.CONTENDERS, "webdataset")
    monkeypatch.setattr(loader, "drop_caches", lambda: False)  # others use this machine too
    loader.prepare(tmp_path, 32, 50)
    found = loader.measure_size(tmp_path, 32, 50, turns=1)
    assert found["images"] == 50 and set(found["mib"]) == {"shards", "png", "webdataset"}
    for name in ("stream", "index", "png"):
        assert found[name]["2 workers"]["warm"]["images_per_second"] > 0 and found[name]["0 workers"]["cold"] is None


@pytest.mark.slow
def test_growth_measures_every_folder(tmp_path):
    run_bench("growth.py", "--cells", "30:1", "30:3", "--out", tmp_path / "o.json")
    cells = json.loads((tmp_path / "o.json").read_text())["results"]
    assert [(cell["rows"], cell["shards"]) for cell in cells] == [(30, 1), (30, 3)]
    assert all(cell["open"]["index_bytes"] == 30 * 25 and cell["verify"]["seconds"] > 0 for cell in cells)
