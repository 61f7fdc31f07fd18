"""What a resumed run finds in its folder, what it refuses, and when run.json appears."""

import json
import os
import shutil

import pytest

from fastgen.errors import OutputError
from fastgen.shards import layout as layout_module
from fastgen.shards.claim import rank_lock
from fastgen.shards.layout import (
    Layout,
    check_signature,
    finish_rank,
    missing_indices,
    own_name,
    publish_first,
    rank_shards,
    scan,
    write_signature,
)
from fastgen.shards.schema import shard_count, shard_indices
from fastgen.shards.verify import identity_of
from tests.shards.shard_samples import make_output, make_signature


@pytest.mark.parametrize("rows, world, size", [(1, 1, 4), (10, 1, 4), (10, 3, 2), (8, 3, 3), (2, 5, 1), (0, 2, 4)])
def test_every_row_is_in_exactly_one_shard(rows, world, size):
    found = []
    for rank in range(world):
        for shard in range(shard_count(rank, world=world, shard_size=size, rows=rows)):
            indices = shard_indices(rank, shard, world=world, shard_size=size, rows=rows)
            assert 1 <= len(indices) <= size and all(i % world == rank for i in indices)
            found += indices
    assert sorted(found) == list(range(rows))


def test_a_folder_goes_on_with_the_same_signature_only(tmp_path):
    layout = Layout(tmp_path / "out")
    write_signature(layout, make_signature())
    write_signature(layout, make_signature())
    changed = make_signature(seed=1, engine={"fingerprint": "x" * 64, "height": 16, "width": 16})
    with pytest.raises(OutputError) as error:
        write_signature(layout, changed)
    message = str(error.value)
    assert 'engine.fingerprint: the folder has "eee' in message and "this command has" in message
    assert "seed: the folder has 0, this command has 1" in message and "choose another --out" in message
    assert "bank" not in message.replace("bank.", "")


def test_foreign_folders_are_refused(tmp_path):
    (tmp_path / "plan.jsonl").write_text("{}\n")
    with pytest.raises(OutputError, match="but no plan.json; choose another --out"):
        write_signature(Layout(tmp_path), make_signature())


def test_another_rank_may_write_its_plan_between_two_looks_at_the_folder(tmp_path, monkeypatch):
    layout, read = Layout(tmp_path), layout_module.read_json

    def read_just_before_the_other_rank(path):
        found = read(path)
        if found is None:  # plan.json first, as write_plan does
            write_other(layout.signature, json.dumps(make_signature()))
            write_other(layout.plan, "{}\n")
        return found

    def write_other(path, text):
        (tmp_path / "other").write_text(text)
        publish_first(tmp_path / "other", path)

    monkeypatch.setattr(layout_module, "read_json", read_just_before_the_other_rank)
    assert check_signature(layout, make_signature())
    layout.signature.unlink()
    layout.plan.unlink()
    with pytest.raises(OutputError, match="seed: the folder has 0, this command has 1"):
        check_signature(layout, make_signature(seed=1))


def test_processes_of_one_number_on_two_machines_do_not_share_a_file(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(layout_module, "publish_first", lambda tmp, path: written.append(tmp.read_text()) or True)
    assert own_name(tmp_path / "plan.jsonl") != own_name(tmp_path / "plan.jsonl")
    for text in ("one", "two"):
        assert layout_module.write_first(tmp_path / "plan.json", text)
    assert written == ["one", "two"] and sorted(path.read_text() for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_first_plan_wins(tmp_path):
    for text in ("one", "two"):
        (tmp_path / text).write_text(text)
    assert publish_first(tmp_path / "one", tmp_path / "plan.jsonl")
    assert not publish_first(tmp_path / "two", tmp_path / "plan.jsonl")
    assert (tmp_path / "plan.jsonl").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.jsonl"]


def test_scan_says_what_is_missing(tmp_path):
    layout = make_output(tmp_path / "out", rows=10, shard_size=4)
    identity = identity_of(make_signature())
    layout.shard(0, 1).unlink()
    progress = scan(layout, identity, rank=0, rows=10)
    assert progress.rows == 6 and progress.complete == {0, 2} and progress.status["good"] == 6
    missing = {shard: missing_indices(progress, shard, i) for shard, i in rank_shards(identity, rank=0, rows=10)}
    assert missing == {0: [], 1: [4, 5, 6, 7], 2: []}


@pytest.mark.parametrize("damage", ["foreign", "double", "cut"])
def test_scan_refuses_damage_and_says_what_to_do(tmp_path, damage):
    layout = make_output(tmp_path / "out", rows=10, shard_size=4)
    target = layout.shard(0, 0)
    if damage == "foreign":
        shutil.copy(layout.shard(0, 1), target)
        message = "00000-r000.h5: attribute shard is 1, this run has 0; holds rows that are not its own"
    elif damage == "double":
        target = layout.shard(0, 0, 2)
        shutil.copy(layout.shard(0, 0), target)
        message = "00000-r000-p2.h5: holds rows that are not its own, or that another file holds too"
    else:
        target.write_bytes(target.read_bytes()[:1000])
        message = "00000-r000.h5: cannot be read as a shard"
    with pytest.raises(OutputError, match="Delete this file and run again: only its rows are made anew") as error:
        scan(layout, identity_of(make_signature()), rank=0, rows=10)
    assert message in str(error.value)


def test_one_process_per_rank(tmp_path):
    layout = Layout(tmp_path / "out")
    with rank_lock(layout, 0), rank_lock(layout, 1):
        with pytest.raises(OutputError, match="another process is making rank 0"), rank_lock(layout, 0):
            pass
    with rank_lock(layout, 0):
        pass
    assert os.listdir(layout.out) == ["shards"]


def test_a_lock_clears_the_leftovers_of_its_rank_only(tmp_path):
    layout = Layout(tmp_path / "out")
    layout.shards.mkdir(parents=True)
    for name in ("00000-r000.h5.part", "00000-r000-p1.h5.part", "00000-r001.h5.part"):
        (layout.shards / name).write_bytes(b"")
    with rank_lock(layout, 0):
        assert os.listdir(layout.shards) == ["00000-r001.h5.part"]


def test_run_json_appears_with_the_last_rank(tmp_path):
    layout = make_output(tmp_path / "out", rows=7, world=3, finish=False)
    identity = identity_of(make_signature(world=3))
    for rank, complete in ((2, False), (0, False), (1, True)):
        progress = scan(layout, identity, rank=rank, rows=7)
        report = {"rank": rank, "counts": progress.status, "shards": progress.files, "seconds": 2.0}
        assert finish_rank(layout, report, rank=rank, world=3, common={"fastgen_run": 1}) == complete
        assert layout.run.exists() == complete
    run = json.loads(layout.run.read_text())
    assert run["counts"]["good"] == 7 and run["seconds"] == 6.0
    assert [entry["name"] for entry in run["shards"]] == ["00000-r000.h5", "00000-r001.h5", "00000-r002.h5"]
