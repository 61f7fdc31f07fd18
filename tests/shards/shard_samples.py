"""Rows, plans and a finished output folder without any engine."""

import json

import numpy as np

from fastgen.records import Header, Row
from fastgen.shards.layout import (
    Layout,
    finish_rank,
    plan_id,
    publish_first,
    rank_shards,
    scan,
    write_signature,
)
from fastgen.shards.schema import PlanRow, Sample, status_counts
from fastgen.shards.verify import identity_of
from fastgen.shards.write import ShardWriter

HEADER = Header(name="toy", classes=("cat", "dog"))
SIDE = 16


def make_plan(count: int) -> list[PlanRow]:
    """Resolved rows of two classes."""
    planned = []
    for index in range(count):
        name = HEADER.classes[index % 2]
        obj = {
            "id": f"row-{index}",
            "class": name,
            "label": index % 2,
            "prompt": f"a photo of a {name}, größer {index}",
            "seed": 2**64 - 1 - index,
            "ref": {"id": f"ref-{index % 3}"},
            "lambda": 0.25,
            "score": 0.5,
            "lambda_mu": 0.2,
        }
        row = Row.from_json(obj, HEADER)
        line = json.dumps(row.to_json(), ensure_ascii=False)
        planned.append(PlanRow(index=index, line=line, row=row))
    return planned


def image_of(index: int) -> np.ndarray:
    """The image that belongs to a plan index, uint8 (SIDE, SIDE, 3)."""
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def sample_of(planned: PlanRow) -> Sample:
    """A good sample."""
    return Sample(row=planned.row, image=image_of(planned.index))


def make_signature(*, world=1, shard_size=4, **changes) -> dict:
    """What plan.json holds."""
    base = {
        "fastgen_plan": 1,
        "header": HEADER.to_json(),
        "bank": {"sha256": "b" * 64},
        "engine": {"fingerprint": "e" * 64, "height": SIDE, "width": SIDE},
        "seed": 0,
        "world": world,
        "shard_size": shard_size,
    }
    return {**base, **changes}


def make_output(out, *, rows=10, world=1, shard_size=4, finish=True) -> Layout:
    """Write a whole output folder as `fastgen run` does."""
    layout, signature, plan = Layout(out), make_signature(world=world, shard_size=shard_size), make_plan(rows)
    layout.shards.mkdir(parents=True)
    write_signature(layout, signature)
    tmp = layout.out / "tmp"
    tmp.write_text("".join(f"{planned.line}\n" for planned in plan), encoding="utf-8")
    publish_first(tmp, layout.plan)
    identity = identity_of(signature)
    assert identity.plan_id == plan_id(signature)
    for rank in range(world):
        with ShardWriter(identity, rank=rank) as writer:
            for shard, indices in rank_shards(identity, rank=rank, rows=rows):
                planned = [plan[i] for i in indices]
                path = layout.shard(rank, shard)
                writer.begin(path, planned, short=layout.shard(rank, shard, 0), shard=shard)
                for one in planned:
                    writer.write(sample_of(one))
                writer.finish()
        if finish:
            done = scan(layout, identity, rank=rank, rows=rows)
            report = {"rank": rank, "counts": done.status, "shards": done.files, "seconds": 1.0}
            finish_rank(layout, report, rank=rank, world=world, common={"fastgen_run": 1, "rows": rows})
    assert status_counts([0])["good"] == 1
    return layout
