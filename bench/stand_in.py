"""Output folders as `fastgen run` leaves them, with made-up images: no engine, but the real writer of shards."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fastgen.files import atomic_file
from fastgen.records import Header, Row
from fastgen.shards.layout import Layout, finish_rank, rank_shards, scan, write_signature
from fastgen.shards.schema import PlanRow, Sample
from fastgen.shards.verify import identity_of
from fastgen.shards.write import OpenShard

CLASSES = ("Abyssinian", "Beagle", "Pug", "Siamese")
HEADER = Header(name="stand-in", classes=CLASSES)
Painter = Callable[[int], np.ndarray]


def write_run(out: Path, *, rows: int, shard_size: int, side: int, paint: Painter) -> None:
    """Write a finished output folder of one rank.

    Args:
        out: the folder; one that is there is replaced.
        rows, shard_size: rows of the plan, and of a shard.
        side: of the images, pixels.
        paint: gives the image of a row by its number, uint8 (side, side, 3).
    """
    shutil.rmtree(out, ignore_errors=True)
    layout = Layout(out)
    layout.shards.mkdir(parents=True)
    engine = {"name": "stand-in", "fingerprint": "e" * 64, "height": side, "width": side}
    signature = {"fastgen_plan": 1, "header": HEADER.to_json(), "bank": {"sha256": "b" * 64}, "engine": engine}
    signature |= {"seed": 0, "arguments": {}, "world": 1, "shard_size": shard_size}
    write_signature(layout, signature)
    identity = identity_of(signature)
    with atomic_file(layout.plan) as plan:
        for shard, indices in rank_shards(identity, rank=0, rows=rows):
            planned = list(_planned(indices))
            plan.write("".join(f"{one.line}\n" for one in planned).encode())
            file = OpenShard(
                layout.shard(0, shard), planned, identity, short=layout.shard(0, shard, 0), rank=0, shard=shard
            )
            for one in planned:
                file.write(Sample(row=one.row, image=paint(one.index)))
            file.publish()
    done = scan(layout, identity, rank=0, rows=rows)
    report = {"rank": 0, "counts": done.status, "shards": done.files, "seconds": 0.0}
    common = {"fastgen_run": 1, "rows": rows, "classes": list(CLASSES)}
    finish_rank(layout, report, rank=0, world=1, common=common)


def _planned(indices: range) -> Iterator[PlanRow]:
    for index in indices:
        label = index % len(CLASSES)
        prompt = f"a photo of a {CLASSES[label]}, number {index}, on grass in the evening sun"
        obj = {"id": f"row-{index}", "class": CLASSES[label], "label": label, "prompt": prompt, "seed": index}
        row = Row.from_json({**obj, "lambda": 0.25, "score": 0.5, "steps": 25, "guidance_scale": 3.0}, HEADER)
        yield PlanRow(index=index, line=json.dumps(row.to_json()), row=row)


def flat(side: int) -> Painter:
    """Images of one colour."""
    return lambda index: np.full((side, side, 3), index % 251, np.uint8)


def smooth(side: int) -> Painter:
    """Images of soft random shapes with a little grain, which compress about as generated ones do."""

    def paint(index: int) -> np.ndarray:
        draw = np.random.default_rng(index)
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        shapes = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        grain = draw.standard_normal((side, side, 1), np.float32) * 3
        return np.clip(shapes + grain, 0, 255).astype(np.uint8)

    return paint
