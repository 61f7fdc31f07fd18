"""Long banks: images are made while another process checks the bank, and nothing is published before it has passed.

What counts as long is turned down for the process that makes images; all else, the other process too, is real.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastgen.errors import BankError, Interrupted, OutputError
from fastgen.production import bank_check
from fastgen.production.bank_check import BankCheck, Order, is_long
from fastgen.production.run import plan, run
from fastgen.production.setup import Arguments, engine_facts
from fastgen.shards.layout import Layout
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine
from tests.output_folder import assert_same, images_of, shards_in
from tests.toy_bank import FORK, start, wait_for, write_bank


@pytest.fixture(autouse=True)
def everything_is_long(monkeypatch):
    monkeypatch.setattr(bank_check, "AT_ONCE", 3)


ROWS = 49
MORE = 80_000
LAST = ROWS // 2 + MORE + 2
"""Number of the last line of `bank`."""


@pytest.fixture
def short(tmp_path):
    """24 rows with two references each, and one without: 49 images."""
    return write_bank(tmp_path, sentences=12)


@pytest.fixture
def bank(short):
    """The same with so many more rows that the check takes seconds; runs stop after the first 49 images."""
    with open(short, "a", encoding="utf-8") as file:
        file.write('{"class": "cat", "prompt": "x", "lambda": null}\n' * MORE)
    return short


@pytest.fixture
def expected(tmp_path, monkeypatch):
    """What the first rows give when they are all there is and are checked first."""
    bank = write_bank(tmp_path / "alone", sentences=12)
    with monkeypatch.context() as patch:
        patch.setattr(bank_check, "AT_ONCE", 1000)
        run(bank, engine=FakeEngine(), out=tmp_path / "expected", quiet=True)
    return images_of(tmp_path / "expected")


def unchecked_in(out):
    return sorted(path.name for path in (out / "shards").glob("*.unchecked"))


def break_last_rows(bank):
    lines = bank.read_text().splitlines()
    lines[-2:] = ['{"id": "a", "class": "cow", "prompt": "x"}', '{"id": "dog-0", "class": "cat", "prompt": "x"}']
    bank.write_text("\n".join(lines) + "\n")


def order_for(bank, layout=None, signature=None):
    names = ("refs", "shots", "policy", "steps", "guidance", "scheduler", "limit", "clip")
    arguments = Arguments(bank=bank, seed=0, **dict.fromkeys(names))
    return Order(arguments=arguments, facts=engine_facts(FakeEngine()), layout=layout, signature=signature)


def test_a_bank_is_long_from_its_lines(short, monkeypatch):
    for at_once, answer in ((24, True), (25, False)):
        monkeypatch.setattr(bank_check, "AT_ONCE", at_once)
        assert is_long(short) is answer


def test_the_images_are_those_of_a_bank_that_was_checked_first(bank, expected, tmp_path, capsys):
    out = tmp_path / "out"
    report = run(bank, engine=FakeEngine(), out=out, shard_size=4, limit=ROWS)
    assert (report.rows, report.made, report.complete) == (49, 49, True)
    assert_same(images_of(out), expected)
    assert verify(out) == [] and unchecked_in(out) == []
    assert (out / "plan.jsonl").read_bytes() == (tmp_path / "expected" / "plan.jsonl").read_bytes()
    said = capsys.readouterr().err
    assert "00000-r000.h5.unchecked: 4 images; 4 done, " in said, "made before anybody knew how many there are"


def test_a_short_bank_with_a_long_plan_is_checked_first_and_then_planned_meanwhile(
    short, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bank_check, "AT_ONCE", 30)
    run(short, engine=FakeEngine(seconds_per_step=0.02), out=tmp_path / "out", shard_size=4)
    assert ".unchecked: 4 images" in capsys.readouterr().err and verify(tmp_path / "out") == []
    break_last_rows(short)
    with pytest.raises(BankError, match="cow"):
        run(short, engine=FakeEngine(), out=tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()


def test_a_wrong_row_at_the_end_is_an_error_with_the_whole_list_and_nothing_is_published(bank, tmp_path):
    break_last_rows(bank)
    out = tmp_path / "out"
    process = start(bank, out, engine=FakeEngine(), shard_size=4, limit=ROWS)
    wait_for(lambda: unchecked_in(out))
    process.join(60)
    assert process.exitcode == 2
    assert shards_in(out) == unchecked_in(out) == [] and not list((out / "shards").glob("*.part"))
    assert not (out / "plan.json").exists() and not (out / "run.json").exists()
    with pytest.raises(BankError) as error:
        run(bank, engine=FakeEngine(), out=out, quiet=True)
    assert f"toy.jsonl:{LAST - 1}: field 'class'" in str(error.value)
    assert f"toy.jsonl:{LAST}: field 'id'" in str(error.value)
    good = write_bank(tmp_path / "fixed", sentences=2)
    assert run(good, engine=FakeEngine(), out=out, quiet=True).complete and verify(out) == []


def test_a_wrong_row_in_the_first_shard_waits_for_the_whole_list(bank, tmp_path):
    break_last_rows(bank)
    lines = bank.read_text().splitlines()
    lines[1] = '{"id": "first", "class": "cat", "prompt": ""}'
    bank.write_text("\n".join(lines) + "\n")
    engine = FakeEngine()
    with pytest.raises(BankError) as error:
        run(bank, engine=engine, out=tmp_path / "out", quiet=True)
    assert [p.split(":")[1] for p in error.value.problems] == ["2", str(LAST - 1), str(LAST)] and engine.calls == []


def test_kill_nine_during_the_check_loses_the_open_shard_only(bank, expected, tmp_path):
    out = tmp_path / "out"
    process = start(bank, out, engine=FakeEngine(seconds_per_step=0.02), shard_size=4, batch=2, limit=ROWS)
    wait_for(lambda: len(unchecked_in(out)) >= 2)
    assert not (out / "plan.jsonl").exists(), "the machine is too fast for this test"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    saved = unchecked_in(out)
    assert shards_in(out) == []
    report = run(bank, engine=FakeEngine(), out=out, shard_size=4, limit=ROWS, quiet=True)
    assert report.complete and report.made == len(expected) - 4 * len(saved)
    assert_same(images_of(out), expected)
    assert verify(out) == [] and unchecked_in(out) == []


def test_a_signal_during_the_check_loses_nothing(bank, expected, tmp_path):
    out, made = tmp_path / "out", 0
    for _ in range(2):
        engine = FakeEngine(seconds_per_step=0.02)
        engine.steps = FORK.Value("i", 0)
        process = start(bank, out, engine=engine, shard_size=40, batch=2, limit=ROWS)
        wait_for(lambda engine=engine: engine.steps.value > 6)
        os.kill(process.pid, signal.SIGTERM)
        process.join(30)
        assert process.exitcode == 75 and shards_in(out) == []
        made += 1
        assert len(unchecked_in(out)) == made
    assert unchecked_in(out) == ["00000-r000-p0.h5.unchecked", "00000-r000-p1.h5.unchecked"]
    report = run(bank, engine=FakeEngine(), out=out, shard_size=40, limit=ROWS, quiet=True)
    assert report.made <= len(expected) - 8 and report.complete
    assert_same(images_of(out), expected)
    assert verify(out) == []


def test_ranks_check_at_once_and_agree(bank, expected, tmp_path):
    out = tmp_path / "out"
    ranks = [start(bank, out, engine=FakeEngine(), rank=rank, world=2, shard_size=5, limit=ROWS) for rank in range(2)]
    for process in ranks:
        process.join(90)
        assert process.exitcode == 0
    assert verify(out) == [] and unchecked_in(out) == []
    assert_same(images_of(out), expected)


def test_other_arguments_are_refused_before_the_check_is_done(bank, tmp_path):
    out = tmp_path / "out"
    process = start(bank, out, engine=FakeEngine(seconds_per_step=0.05), shard_size=2, limit=ROWS)
    wait_for(lambda: unchecked_in(out))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    saved = unchecked_in(out)
    with pytest.raises(OutputError, match="was made with another bank, engine or options .*choose another --out"):
        run(bank, engine=FakeEngine(), out=out, shard_size=2, limit=ROWS, seed=1, quiet=True)
    assert unchecked_in(out) == saved


def test_plan_gives_rows_at_once_and_says_at_the_end_what_is_wrong(bank):
    first = list(plan(bank, engine=FakeEngine(), limit=ROWS))
    assert len(first) == ROWS
    break_last_rows(bank)
    rows = plan(bank, engine=FakeEngine(), limit=ROWS)
    assert next(rows) == first[0]
    with pytest.raises(BankError) as error:
        list(rows)
    assert len(error.value.problems) == 2


def test_an_abandoned_plan_ends_its_check(bank, monkeypatch):
    begun = []
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *words, **options: begun.append(real(*words, **options)) or begun[0]
    )
    rows = plan(bank, engine=FakeEngine())
    next(rows)
    rows.close()
    assert begun[0].poll() is not None


def test_the_check_ends_with_the_process_that_wanted_it(bank):
    code = "import pickle, sys\nfrom fastgen.production.bank_check import BankCheck\n"
    code += "check = BankCheck(pickle.load(sys.stdin.buffer)).__enter__()\nprint(check._process.pid, flush=True)\n"
    code += "import time; time.sleep(60)"
    with open(bank, "a", encoding="utf-8") as file:  # alone it would be at work for ten seconds
        file.write('{"class": "cat", "prompt": "x"}\n' * 400_000)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    pickle.dump(order_for(bank), process.stdin)
    process.stdin.close()
    checker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: not is_alive(checker), 3)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Interrupted), (signal.SIGKILL, OutputError)])
def test_a_check_that_was_ended_says_neither_yes_nor_no(bank, number, kind):
    with BankCheck(order_for(bank)) as check:
        os.kill(check._process.pid, number)
        with pytest.raises(kind, match="check of"):
            check.wait()
        assert check.has_failed and not check.has_passed


def test_a_bank_that_changes_under_the_check_does_not_pass(bank, tmp_path):
    order = order_for(bank, Layout(tmp_path / "out"), {"bank": {"sha256": "0" * 64}})
    with BankCheck(order) as check, pytest.raises(BankError, match="was changed while it was read"):
        check.wait()


def test_errors_survive_the_way_between_processes():
    error = BankError(["a:1: wrong", "a:2: wrong"], total=30, more_possible=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.problems, copy.total, copy.exit_code) == (str(error), error.problems, 30, 2)
    assert json.dumps(str(copy)).count("at least 28 more") == 1
