"""verify --repair moves exactly what is damaged, so that the same run makes exactly that again."""

import json
import shutil
from contextlib import suppress

import h5py
import pytest

from fastgen.errors import OutputError
from fastgen.production.run import run
from fastgen.shards.layout import Layout
from fastgen.shards.repair import repair
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine
from tests.output_folder import assert_same, images_of, shards_in
from tests.toy_bank import write_bank

ARGUMENTS = {"shard_size": 4, "quiet": True}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A finished run of 13 rows in 4 shards; do not write into it."""
    folder = tmp_path_factory.mktemp("repair")
    run(write_bank(folder), engine=FakeEngine(), out=folder / "out", **ARGUMENTS)
    return folder


@pytest.fixture
def home(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "home")


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 4
    path.write_bytes(data)


def change_attribute(layout):
    with h5py.File(layout.shard(0, 1), "r+") as file:
        file.attrs["fastgen_version"] = "0"


def foreign_shard(layout):
    other = layout.out.parent / "other"
    run(layout.out.parent / "toy.jsonl", engine=FakeEngine(), out=other, seed=1, **ARGUMENTS)
    shutil.copy(Layout(other).shard(0, 1), layout.shard(0, 1))


def edit_plan(layout):
    text = layout.plan.read_text()
    layout.plan.write_text(text.replace("number 1", "number 7", 1))


def edit_signature(layout):
    signature = json.loads(layout.signature.read_text())
    layout.signature.write_text(json.dumps({**signature, "seed": 9}))


def edit_report(layout):
    report = json.loads(layout.run.read_text())
    layout.run.write_text(json.dumps({**report, "seconds": 1.0}, indent=1) + "\n")


DAMAGE = {
    "a flipped bit of an image": (lambda x: flip(x.shard(0, 1), 0.1), ["shards/00001-r000.h5"], 4),
    "a flipped bit at the end": (lambda x: flip(x.shard(0, 3), 0.97), ["shards/00003-r000.h5"], 1),
    "an attribute": (change_attribute, ["shards/00001-r000.h5"], 4),
    "an empty file": (lambda x: x.shard(0, 0).write_bytes(b""), ["shards/00000-r000.h5"], 4),
    "no HDF5": (lambda x: x.shard(0, 0).write_text("hello"), ["shards/00000-r000.h5"], 4),
    "a cut file": (
        lambda x: x.shard(0, 2).write_bytes(x.shard(0, 2).read_bytes()[:5000]),
        ["shards/00002-r000.h5"],
        4,
    ),
    "a shard that is gone": (lambda x: x.shard(0, 2).unlink(), [], 4),
    "a doubled shard": (
        lambda x: shutil.copy(x.shard(0, 2), x.shard(0, 2, 0)),
        ["shards/00002-r000-p0.h5"],
        0,
    ),
    "a misplaced shard": (
        lambda x: shutil.copy(x.shard(0, 2), x.shard(0, 1)),
        ["shards/00001-r000.h5"],
        4,
    ),
    "a shard of another run": (foreign_shard, ["shards/00001-r000.h5"], 4),
    "a stranger": (lambda x: shutil.copy(x.shard(0, 2), x.shards / "copy of 2.h5"), ["shards/copy of 2.h5"], 0),
    "an edited plan": (edit_plan, ["plan.jsonl"], 0),
    "a plan without its last byte": (
        lambda x: x.plan.write_bytes(x.plan.read_bytes()[:-1]),
        ["plan.jsonl"],
        0,
    ),
    "a plan that is gone": (lambda x: x.plan.unlink(), ["plan.json"], 0),
    "another plan.json": (edit_signature, ["plan.json", "plan.jsonl"], 0),
    "a cut plan.json": (lambda x: x.signature.write_text("{"), ["plan.json", "plan.jsonl"], 0),
    "an edited run.json": (edit_report, [], 0),
    "a cut run.json": (lambda x: x.run.write_text("{"), [], 0),
    "run.json gone": (lambda x: x.run.unlink(), [], 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_same_run_makes_exactly_what_was_damaged(home, name):
    damage, moved, made = DAMAGE[name]
    layout, bank = Layout(home / "out"), home / "toy.jsonl"
    expected = images_of(layout.out)
    damage(layout)
    assert verify(layout.out)
    done = repair(layout.out)
    assert [path for path in done.moved if path != "run.json"] == moved
    assert all((done.folder / path.rpartition("/")[2]).exists() for path in done.moved)
    report = run(bank, engine=FakeEngine(), out=layout.out, **ARGUMENTS)
    assert report.made == made and report.complete
    assert verify(layout.out) == [] and repair(layout.out).moved == []
    assert_same(images_of(layout.out), expected)


def test_nothing_wrong_nothing_moved(home):
    done = repair(home / "out")
    assert done.problems == done.moved == [] and not done.folder.exists()


def test_several_ranks(home):
    out, bank = home / "ranks", home / "toy.jsonl"
    for rank in range(3):
        run(bank, engine=FakeEngine(), out=out, rank=rank, world=3, **ARGUMENTS)
    layout = Layout(out)
    flip(layout.shard(1, 0))
    report = json.loads(layout.rank_report(2).read_text())
    layout.rank_report(2).write_text(json.dumps({**report, "seconds": 77.0}))
    assert any("run-r002.json is not as run.json has it" in line for line in verify(out))
    assert repair(out).moved == ["shards/00000-r001.h5", "run-r001.json", "run-r002.json", "run.json"]
    made = [run(bank, engine=FakeEngine(), out=out, rank=rank, world=3, **ARGUMENTS).made for rank in range(3)]
    assert made == [0, 4, 0] and verify(out) == []


def test_rows_of_a_plan_that_was_damaged_meanwhile(home):
    layout, bank = Layout(home / "out"), home / "toy.jsonl"
    expected = images_of(layout.out)
    line = json.loads(layout.plan.read_text().splitlines()[-1])
    with open(layout.plan, "a") as plan:
        plan.write(json.dumps({**line, "id": "foreign"}) + "\n")
    assert run(bank, engine=FakeEngine(), out=layout.out, **ARGUMENTS).made == 1
    (layout.plan).write_text(layout.plan.read_text().replace('"foreign"', '"other"'))
    for _ in range(2):
        repair(layout.out)
        with suppress(OutputError):
            run(bank, engine=FakeEngine(), out=layout.out, **ARGUMENTS)
    assert verify(layout.out) == []
    assert_same(images_of(layout.out), expected)


def test_damaged_files_are_never_overwritten(home):
    layout = Layout(home / "out")
    for _ in range(3):
        flip(layout.shard(0, 1))
        repair(layout.out)
        run(home / "toy.jsonl", engine=FakeEngine(), out=layout.out, **ARGUMENTS)
    names = sorted(path.name for path in (layout.out / "damaged").glob("*.h5*"))
    assert names == ["00001-r000.h5", "00001-r000.h5.1", "00001-r000.h5.2"] and len(shards_in(layout.out)) == 4
