"""fastgen run with a fake engine: the same images however it is split, killed, stopped or resumed."""

import json
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastgen.errors import BankError, EngineError, FastgenError, Interrupted, OutputError
from fastgen.production.run import plan, run
from fastgen.shards.read import open_output
from fastgen.shards.verify import verify
from tests.fake_engine import SIZE, FakeEngine
from tests.output_folder import assert_same, images_of, shards_in
from tests.toy_bank import FORK, start, wait_for, write_bank


@pytest.fixture
def bank(tmp_path):
    """Six prompt rows and one image row; with two references per class, 13 images."""
    return write_bank(tmp_path)


def test_the_folder_is_as_promised(bank, tmp_path):
    out = tmp_path / "out"
    report = run(bank, engine=FakeEngine(), out=out, shard_size=5, quiet=True)
    assert (report.rows, report.made, report.failed, report.complete) == (13, 13, 0, True)
    assert sorted(os.listdir(out)) == ["plan.json", "plan.jsonl", "run.json", "shards"]
    assert shards_in(out) == ["00000-r000.h5", "00001-r000.h5", "00002-r000.h5"]
    assert verify(out) == []
    rows = [json.loads(line) for line in (out / "plan.jsonl").read_text().splitlines()]
    assert len(rows) == 13 and rows[0]["steps"] == 2 and rows[0]["scheduler"] == "ddim"
    assert all(0 <= row["lambda"] <= 1 for row in rows[:-1]) and rows[-1]["lambda"] is None
    with h5py.File(out / "shards" / "00002-r000.h5") as file:
        assert file["image"].shape == (3, SIZE, SIZE, 3) and np.isnan(file["lambda"][2])
        assert [json.loads(text) for text in file["meta"].asstr()] == rows[10:]
    record = json.loads((out / "run.json").read_text())
    assert record["counts"] == {"good": 13, "non_finite": 0, "flat": 0, "reference_failed": 0}
    assert record["command"].startswith(f"fastgen run --bank {bank} ") and record["rows"] == 13
    assert record["engine"]["fingerprint"] == "f" * 64 and "torch" in record["versions"]
    assert record["ranks"][0]["device"] == "cpu" and "--provider" not in record["command"]


@pytest.mark.parametrize("arguments", [{"batch": 1}, {"batch": 7}, {"shard_size": 1}, {"shard_size": 100}])
def test_batch_and_shard_size_do_not_change_images(bank, tmp_path, arguments):
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    run(bank, engine=FakeEngine(batch=5), out=tmp_path / "b", quiet=True, **arguments)
    assert_same(images_of(tmp_path / "b"), images_of(tmp_path / "a"))


def test_ranks_share_a_folder_and_the_last_one_writes_run_json(bank, tmp_path):
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    out = tmp_path / "b"
    for rank, complete in ((1, False), (2, False), (0, True)):
        assert not (out / "run.json").exists()
        report = run(bank, engine=FakeEngine(), out=out, rank=rank, world=3, shard_size=2, quiet=True)
        assert report.complete == complete and report.rows == (5 if rank == 0 else 4)
    assert_same(images_of(out), images_of(tmp_path / "a"))
    assert verify(out) == [] and json.loads((out / "run.json").read_text())["counts"]["good"] == 13


def test_ranks_may_start_at_once(bank, tmp_path):
    out = tmp_path / "b"
    ranks = [start(bank, out, engine=FakeEngine(), rank=rank, world=3, shard_size=2) for rank in range(3)]
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    assert verify(out) == []
    assert_same(images_of(out), images_of(tmp_path / "a"))


def test_a_finished_run_is_left_alone(bank, tmp_path):
    run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    engine = FakeEngine()
    report = run(bank, engine=engine, out=tmp_path / "out", quiet=True)
    assert report.made == 0 and report.complete and engine.calls == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_only_a_deleted_shard_is_made_again(bank, tmp_path):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, shard_size=4, quiet=True)
    expected = images_of(out)
    (out / "shards" / "00001-r000.h5").unlink()
    assert run(bank, engine=FakeEngine(), out=out, shard_size=4, quiet=True).made == 4
    assert_same(images_of(out), expected)
    assert verify(out) == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, "seed: the folder has 0, this command has 1"),
        ({"steps": 3}, "arguments.steps: the folder has null, this command has 3"),
        ({"guidance_interval": "0-0.6"}, 'arguments.guidance_interval: the folder has null, this command has "0-0.6"'),
        ({"policy": 0.5}, 'arguments.policy: the folder has null, this command has "0.5"'),
        ({"shard_size": 3}, "shard_size: the folder has 256, this command has 3"),
        ({"rank": 0, "world": 2}, "world: the folder has 1, this command has 2"),
        ({"engine": FakeEngine(fingerprint="0" * 64)}, "engine.fingerprint: the folder has"),
        ({"bank": "other"}, "bank.sha256: the folder has"),
    ],
)
def test_other_arguments_are_refused(bank, tmp_path, change, message):
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), out=out, quiet=True)
    before = shards_in(out)
    if change.get("bank"):
        bank.write_text(bank.read_text().replace("number 2", "number two"))
        change = {}
    with pytest.raises(OutputError) as error:
        run(bank, **{"engine": FakeEngine(), "out": out, "quiet": True, **change})
    assert message in str(error.value) and "choose another --out" in str(error.value)
    assert shards_in(out) == before and verify(out) == []


def test_kill_nine_loses_and_doubles_nothing(tmp_path):
    bank = write_bank(tmp_path, sentences=8)
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    expected, out = images_of(tmp_path / "a"), tmp_path / "b"
    slow = {"engine": FakeEngine(seconds_per_step=0.02), "shard_size": 6, "batch": 2}
    for kill in range(4):
        process = start(bank, out, **slow)
        before = len(shards_in(out))
        if kill == 0:
            wait_for(lambda: (out / "plan.jsonl").exists())
        else:
            wait_for(lambda before=before: len(shards_in(out)) > before)
            time.sleep(0.013 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL and not (out / "run.json").exists()
        for name in shards_in(out):  # whatever has a final name is whole
            with h5py.File(out / "shards" / name) as file:
                assert (file["status"][:] == 0).all() and len(file["image"]) == 6
    done = 6 * len(shards_in(out))
    assert done >= 18
    report = run(bank, out=out, quiet=True, **{**slow, "engine": FakeEngine()})
    assert report.made == len(expected) - done and report.complete
    assert_same(images_of(out), expected)
    assert verify(out) == [] and not list((out / "shards").glob("*.part"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_after_a_signal_nothing_is_made_twice(tmp_path, name):
    bank = write_bank(tmp_path, sentences=8)
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    expected, out = images_of(tmp_path / "a"), tmp_path / "b"
    arguments = {"shard_size": 12, "batch": 2}
    saved = 0
    for _ in range(2):
        engine = FakeEngine(seconds_per_step=0.01)
        engine.steps = FORK.Value("i", 0)
        process = start(bank, out, engine=engine, **arguments)
        wait_for(lambda engine=engine: engine.steps.value > 6)  # two for every batch
        os.kill(process.pid, signal.Signals[name])
        process.join(30)
        assert process.exitcode == 75
        assert not list((out / "shards").glob("*.part")) and not (out / "run.json").exists()
        now = len(images_of(out))
        assert saved < now < len(expected) and now % 2 == 0  # whole batches, and more than before
        saved = now
    assert any("-p0.h5" in shard for shard in shards_in(out))
    report = run(bank, engine=FakeEngine(), out=out, quiet=True, **arguments)
    assert report.made == len(expected) - saved
    assert_same(images_of(out), expected)
    assert verify(out) == []


def test_a_signal_while_planning_leaves_no_folder_to_trip_over(bank, tmp_path, monkeypatch):
    from fastgen.production import run as module

    real = module.planned_rows

    def planned(*arguments):
        for row in real(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            yield row

    monkeypatch.setattr(module, "planned_rows", planned)
    with pytest.raises(Interrupted, match="stopped by SIGTERM: nothing was lost"):
        run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True)
    assert os.listdir(tmp_path / "out") == []


def test_a_broken_reference_fails_its_rows_and_only_them(bank, tmp_path):
    (tmp_path / "refs" / "dog" / "1.png").write_bytes(b"not an image")
    report = run(bank, engine=FakeEngine(), out=tmp_path / "out", policy=0.5, quiet=True)
    assert report.failed == 3 and report.counts["reference_failed"] == 3 and report.complete
    assert len(report.failures) == 3 and "reference_failed: reference image" in report.failures[0]
    assert verify(tmp_path / "out") == []
    assert len(open_output(tmp_path / "out").good) == 10
    assert run(bank, engine=FakeEngine(), out=tmp_path / "out", policy=0.5, quiet=True).failed == 3


def test_the_options_reach_every_row(bank, tmp_path):
    given = {"steps": 3, "guidance": 1.5, "scheduler": "euler", "policy": "0.25", "limit": 5, "seed": 9}
    given |= {"guidance_interval": "0.2-0.8"}
    rows = list(plan(bank, engine=FakeEngine(), **given))
    assert len(rows) == 5
    assert {(r.steps, r.guidance_scale, r.scheduler, r.lambda_) for r in rows} == {(3, 1.5, "euler", 0.25)}
    assert {r.guidance_interval for r in rows} == {(0.2, 0.8)}
    run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True, **given)
    command = json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    assert " --guidance-interval 0.2-0.8 " in command
    lines = (tmp_path / "out" / "plan.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(row.to_json())) for row in rows]
    assert len(images_of(tmp_path / "out")) == 5


def test_a_row_alone_regenerates_its_image(bank, tmp_path):
    run(bank, engine=FakeEngine(), out=tmp_path / "a", quiet=True)
    row = open_output(tmp_path / "a")[4]
    header = json.loads(bank.read_text().splitlines()[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(header) + "\n" + json.dumps(row) + "\n")
    run(tmp_path / "one.jsonl", engine=FakeEngine(), out=tmp_path / "b", quiet=True)
    assert (images_of(tmp_path / "b")[row["id"]] == images_of(tmp_path / "a")[row["id"]]).all()


def test_the_shipped_bank_works_as_it_stands(tmp_path):
    bank = Path(__file__).parents[1] / "prompts" / "pets.jsonl"
    report = run(bank, engine=FakeEngine(), out=tmp_path / "out", policy="uniform", limit=5, quiet=True)
    assert report.made == 5 and verify(tmp_path / "out") == []
    assert set(open_output(tmp_path / "out").column("class")) == {"Abyssinian"}


class FakeClip:
    """Knows every image as every class equally well."""

    scale = 100.0

    def embed_texts(self, texts):
        return np.eye(len(texts), 8, dtype=np.float32)

    def embed_images(self, images, *, batch=1):
        return np.full((len(images), 8), 8**-0.5, dtype=np.float32)


def test_ags_scores_every_reference_once_and_records_how(bank, tmp_path, monkeypatch):
    from fastgen.clip import ScoringClip

    asked = []
    monkeypatch.setattr(ScoringClip, "load", lambda source: asked.append(source) or FakeClip())
    run(bank, engine=FakeEngine(), out=tmp_path / "out", policy="ags", clip="some-clip", quiet=True)
    assert asked == ["some-clip"]
    with h5py.File(tmp_path / "out" / "shards" / "00000-r000.h5") as file:
        assert (file["clip_score"][:-1] == 0.5).all() and np.isnan(file["clip_score"][-1])
        assert (file["lambda_mu"][:-1] == 0.25).all() and (file["lambda_sigma"][:-1] == 0.05).all()
        assert ((file["lambda"][:-1] >= 0.1) & (file["lambda"][:-1] <= 0.4)).all()


def test_no_engine_says_what_to_type(bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="no engine is built yet in engines/; build one: fastgen build --model mini"):
        run(bank)
    for name in ("one", "two"):
        (tmp_path / "engines" / name).mkdir(parents=True)
        (tmp_path / "engines" / name / "engine.json").write_text("{}")
    with pytest.raises(EngineError, match="there are 2 engines; choose one with --engine: engines/one, engines/two"):
        run(bank)
    with pytest.raises(EngineError, match="--engine three: no folder with an engine.json; built so far: engines/one"):
        run(bank, engine="three")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"limit": 0}, "got --limit 0; allowed: 1 or more"),
        ({"shots": 0}, "got --shots 0"),
        ({"batch": 0}, "got --batch 0"),
        ({"shard_size": 0}, "got --shard-size 0"),
        ({"policy": "asg"}, "policy: got 'asg'"),
        ({"scheduler": "dimm"}, "scheduler: got 'dimm'; allowed: ddim, ddim_trailing, pndm"),
        ({"steps": 0}, "field 'steps': got 0"),
        ({"guidance": -1}, "field 'guidance_scale': got -1"),
        ({"guidance_interval": "0.8"}, "guidance_interval: got '0.8'; allowed: LO-HI with 0 <= LO < HI <= 1"),
        ({"guidance_interval": "0.8-0.2"}, "field 'guidance_interval': got [0.8, 0.2], allowed: two numbers [lo, hi]"),
        ({"rank": 3}, "got --rank without --world"),
        ({"provider": "cpu"}, "got provider 'cpu' with a loaded engine"),
    ],
)
def test_wrong_arguments_are_refused_before_anything(bank, tmp_path, arguments, message):
    with pytest.raises(FastgenError) as error:
        run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True, **arguments)
    assert message in str(error.value) and error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_all_problems_of_a_bank_are_listed_before_anything(bank, tmp_path):
    lines = bank.read_text().splitlines()
    lines[2:4] = [
        '{"id": "a", "class": "cow", "prompt": "x"}',
        '{"id": "b", "class": "cat", "prompt": "x", "width": 64}',
    ]
    bank.write_text("\n".join(lines) + "\n")
    with pytest.raises(BankError) as error:
        run(bank, engine=FakeEngine(), out=tmp_path / "out", quiet=True)
    message = str(error.value)
    assert "toy.jsonl:3: field 'class': got \"cow\"" in message
    assert "toy.jsonl:4: field 'width': got 64, allowed: 32, the size of this engine" in message
    assert not (tmp_path / "out").exists()


def test_one_plain_line_per_shard(bank, tmp_path, capsys):
    run(bank, engine=FakeEngine(), out=tmp_path / "out", shard_size=5, rank=0, world=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rank 0 of 1 (--rank, --world)"
    assert lines[1].endswith("plan.jsonl: 13 rows planned")
    assert lines[2].startswith("00000-r000.h5: 5 images; 5 of 13 done, ") and lines[2].endswith(" left")
    assert lines[4].startswith("00002-r000.h5: 3 images; 13 of 13 done, ") and len(lines) == 5
