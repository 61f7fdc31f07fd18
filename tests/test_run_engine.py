"""fastgen run with a real (tiny, random) engine: from the folder on the disk to shards, the same for any split."""

import json

import pytest

from fastgen.errors import EngineError
from fastgen.production.run import plan, run
from fastgen.shards.read import open_output
from fastgen.shards.verify import verify

DEFAULTS = {"refs": "petworld", "policy": "uniform", "steps": 2}


@pytest.fixture
def bank(tmp_path):
    lines = [{"fastgen_bank": 1, "name": "toy", "classes": ["Beagle", "Siamese"], "defaults": DEFAULTS}]
    for index in range(5):
        for name in lines[0]["classes"]:
            lines.append({"id": f"{name}-{index}", "class": name, "prompt": f"a photo of the dog {index}"})
    lines[3]["guidance_scale"] = 1.0
    lines[5]["scheduler"] = "dpmsolver++"
    path = tmp_path / "toy.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def images_of(out):
    output = open_output(out)
    return dict(zip(output.column("row_id"), output.column("image_sha256"), strict=True))


def test_batches_and_ranks_change_no_bit(bank, tmp_path, tiny_engine_path):
    run(bank, engine=tiny_engine_path, out=tmp_path / "a", quiet=True)
    expected = images_of(tmp_path / "a")
    assert len(set(expected.values())) == 10 and verify(tmp_path / "a") == []
    for batch in (1, 7):
        out = tmp_path / f"batch-{batch}"
        run(bank, engine=tiny_engine_path, out=out, batch=batch, quiet=True)
        assert images_of(out) == expected
    for rank in range(3):
        run(bank, engine=tiny_engine_path, out=tmp_path / "ranks", rank=rank, world=3, shard_size=2, quiet=True)
    assert images_of(tmp_path / "ranks") == expected and verify(tmp_path / "ranks") == []


def test_the_only_engine_is_found_and_a_damaged_one_refused(bank, tmp_path, tiny_engine_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "engines" / "mine"
    shutil.copytree(tiny_engine_path, folder)
    rows = list(plan(bank))
    assert len(rows) == 10 and {row.width for row in rows} == {64} and {row.scheduler for row in rows[:2]} == {"ddim"}
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    with pytest.raises(EngineError, match="scheduler_config.json has other content than at build.*fastgen build"):
        run(bank, quiet=True)
