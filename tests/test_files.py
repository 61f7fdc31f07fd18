"""Files appear whole or not at all, under any way the writer can fail."""

import json
import multiprocessing
import os
import stat

import pytest

from fastgen import files
from fastgen.errors import FastgenError, OutputError
from fastgen.files import (
    atomic_directory,
    atomic_file,
    atomic_write_bytes,
    atomic_write_text,
    canonical_json,
    publish,
    read_jsonl,
    sha256_file,
    sha256_json,
    write_jsonl,
)


def test_written_text_is_utf8_and_leaves_nothing_beside_it(tmp_path):
    path = atomic_write_text(tmp_path / "deep" / "er" / "note.txt", "Kätzchen\n")
    assert path.read_bytes() == "Kätzchen\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        path = atomic_write_bytes(tmp_path / "x", b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failing_block_keeps_the_old_file(tmp_path):
    path = atomic_write_bytes(tmp_path / "x", b"old")
    with pytest.raises(RuntimeError, match="half-way"):
        with atomic_file(path) as handle:
            handle.write(b"new, but only ")
            raise RuntimeError("half-way")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failing_rename_is_an_output_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = atomic_write_bytes(tmp_path / "x", b"old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", no_space)
    with pytest.raises(OutputError, match=r"x: cannot be written \(No space left on device\); check"):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_inside_the_block_is_an_output_error_but_a_missing_input_is_not(tmp_path):
    with pytest.raises(OutputError, match="No space left"):
        with atomic_file(tmp_path / "x"):
            raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError):
        with atomic_file(tmp_path / "x"):
            open(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write_text(tmp_path / "file" / "x", "1")


def test_directory_appears_whole(tmp_path):
    with atomic_directory(tmp_path / "a" / "out") as tmp:
        (tmp / "sub").mkdir()
        (tmp / "sub" / "x").write_text("1")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "sub" / "x").read_text() == "1"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_a_failing_directory_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with atomic_directory(tmp_path / "out") as tmp:
            (tmp / "x").write_text("1")
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="already exists; remove it or choose another name"):
        with atomic_directory(tmp_path / "out"):
            pytest.fail("the block must not run")


def test_an_existing_directory_is_replaced_on_request_and_kept_on_failure(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    with pytest.raises(RuntimeError):
        with atomic_directory(tmp_path / "out", replace=True):
            raise RuntimeError
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["old"]
    with atomic_directory(tmp_path / "out", replace=True) as tmp:
        (tmp / "new").write_text("")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def replace_often(folder, name):
    for number in range(200):
        with atomic_directory(folder, replace=True) as tmp:
            for file in "ab":
                (tmp / file).write_text(f"{name} {number}")


def test_processes_that_replace_the_same_directory_leave_one_of_theirs_whole(tmp_path):
    folder = tmp_path / "out"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=replace_often, args=(folder, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (folder / "a").read_text() == (folder / "b").read_text() and os.listdir(tmp_path) == ["out"]


def test_a_directory_that_somebody_else_made_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(OutputError, match="out: cannot be written"):
        with atomic_directory(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["theirs"] and os.listdir(tmp_path) == ["out"]


def test_publish_gives_the_final_name(tmp_path):
    (tmp_path / "x.part").write_text("1")
    assert publish(tmp_path / "x.part", tmp_path / "x") == tmp_path / "x"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with pytest.raises(OutputError, match="No such file"):
        publish(tmp_path / "nothing", tmp_path / "y")


def test_hashes_are_those_of_the_standard(tmp_path):
    path = atomic_write_bytes(tmp_path / "x", b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert canonical_json({"b": [1, 0.5], "a": "ä"}) == '{"a":"\\u00e4","b":[1,0.5]}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_jsonl_round_trip_and_damage(tmp_path):
    objects = [{"a": "ä"}, {"b": 1}]
    path = write_jsonl(tmp_path / "x.jsonl", iter(objects))
    assert list(read_jsonl(path)) == objects
    assert path.read_text().splitlines()[0] == json.dumps(objects[0], ensure_ascii=False)
    path.write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(FastgenError, match=r"x\.jsonl:2: not a line of JSON"):
        list(read_jsonl(path))
    with pytest.raises(FastgenError, match=r"none\.jsonl: cannot be read \(No such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))
