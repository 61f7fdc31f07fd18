"""Output folders written with h5py alone, as docs/formats.md describes them; no engine, no writer."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastgen.shards.read import open_output
from fastgen.shards.schema import ATTRIBUTES, FORMAT, NUMBERS, STATUS_NAMES, TEXTS

CLASSES = ("blue", "red")


def make_row(index: int, *, class_: str = "red", classes: Sequence[str] = CLASSES, **more: Any) -> dict[str, Any]:
    """A resolved row as JSON; `status` and `image` are taken out again when it is written."""
    label = list(classes).index(class_)
    return {
        "id": f"row-{index}",
        "class": class_,
        "label": label,
        "prompt": f"a photo of a {class_} square",
        "seed": index,
    } | more


def write_output(
    out: Path,
    rows: Sequence[dict[str, Any]],
    *,
    classes: Sequence[str] = CLASSES,
    per_shard: int = 100,
    side: int = 16,
    compression: str | None = None,
) -> Path:
    """Writes `out/shards/*.h5`; a row may also have `image` (uint8 (side, side, 3)) and `status`."""
    (out / "shards").mkdir(parents=True)
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        part = rows[start : start + per_shard]
        path = out / "shards" / f"{shard:05d}-r000.h5"
        _write_shard(path, part, classes, start, side=side, compression=compression)
    return out


def _write_shard(
    path: Path,
    rows: Sequence[dict[str, Any]],
    classes: Sequence[str],
    start: int,
    *,
    side: int,
    compression: str | None,
) -> None:
    images = [
        row.get("image", np.full((side, side, 3), 40 * (start + i) % 256, np.uint8)) for i, row in enumerate(rows)
    ]
    metas = [{k: v for k, v in row.items() if k not in ("image", "status")} for row in rows]
    columns: dict[str, list] = {
        "row_id": [m["id"] for m in metas],
        "prompt": [m["prompt"] for m in metas],
        "negative_prompt": [""] * len(rows),
        "class": [m["class"] for m in metas],
        "ref_id": [m.get("ref", {}).get("id", "") for m in metas],
        "meta": [json.dumps(m) for m in metas],
        "reason": [""] * len(rows),
        "label": [m["label"] for m in metas],
        "lambda": [m.get("lambda", np.nan) for m in metas],
        "clip_score": [m.get("score", np.nan) for m in metas],
        "lambda_mu": [np.nan] * len(rows),
        "lambda_sigma": [np.nan] * len(rows),
        "seed": [m["seed"] for m in metas],
        "status": [row.get("status", 0) for row in rows],
        "plan_index": list(range(start, start + len(rows))),
        "image_sha256": [hashlib.sha256(image.tobytes()).hexdigest().encode() for image in images],
    }
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=np.stack(images), chunks=(1, *images[0].shape), compression=compression)
        for name in TEXTS:
            file.create_dataset(name, data=columns[name], dtype=h5py.string_dtype())
        for name, dtype in NUMBERS.items():
            file.create_dataset(name, data=np.array(columns[name], dtype))
        digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
        known = {
            "fastgen_shard": FORMAT,
            "classes": list(classes),
            "status_names": list(STATUS_NAMES),
            "sha256": digest,
        }
        for name in ATTRIBUTES:
            file.attrs[name] = known.get(name, 0 if name in ("rank", "shard") else "test")


def images_of(out):
    """Row id -> image, checking that no row is there twice."""
    output = open_output(out)
    ids = output.column("row_id").tolist()
    assert len(set(ids)) == len(ids)
    return {name: output.image(i) for i, name in enumerate(ids)}


def assert_same(found, expected):
    """The same row ids with the same images."""
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def shards_in(out):
    """Names of the files with a final name, sorted."""
    return sorted(path.name for path in (out / "shards").glob("*.h5"))
