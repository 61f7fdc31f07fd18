"""`fastgen import`: a folder of synthetic images that another program made becomes an output folder of shards.

So the trainer, evaluate, inspect and verify take DataDream's images, say, as they take fastgen's own. The rows say
where every image comes from: its file, the hash of the file, and the method's name. They cannot be generated again.
"""

import json
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fastgen import __version__
from fastgen.bank.class_names import folder_class
from fastgen.bank.template import PLACE
from fastgen.errors import FastgenError, OutputError
from fastgen.files import atomic_directory, atomic_write_text, sha256_file, sha256_json
from fastgen.plan.folders import list_folders, list_images, match_names
from fastgen.plan.pictures import open_picture
from fastgen.production.plan_file import plan_line
from fastgen.records import Header, Row
from fastgen.shards.layout import (
    PLAN_FORMAT,
    RUN_FORMAT,
    Layout,
    check_signature,
    finish_rank,
    rank_shards,
    scan,
    write_signature,
)
from fastgen.shards.schema import FLAT, GOOD, PlanRow, Sample
from fastgen.shards.verify import identity_of
from fastgen.shards.write import ShardWriter

FLAT_RANGE = 1
"""As for generated images: flat is one in which no channel spans more grey levels (a safety checker's black image)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One image to import: its row, its file, and the size it gets as (width, height)."""

    row: Row
    file: Path
    size: tuple[int, int]


def import_images(
    folder: str | Path,
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    method: str = "import",
    template: str = "a photo of a {class}",
    size: int | None = None,
    shard_size: int = 256,
    say: Callable[[str], None] = print,
) -> Path:
    """Write an output folder with the images of a folder, whole or not at all.

    Args:
        folder: one folder of images per class; compared with class names without regard to case, "_" and "-".
        out: the output folder; if it holds the same import already, nothing is done.
        classes: ordered class names; None takes the folders' names, sorted, with blanks for "_".
        method: name of what made the images, such as "datadream"; kept in every row.
        template: the prompt that rows are given; the one that the images were made with.
        size: side in pixels; images of another size are cut to a square around their centre and scaled. None: all
            images have the same size, which is kept.
        shard_size: images per shard.
        say: is told what was done.

    Returns:
        `out` as a path.

    Raises:
        FastgenError: an argument is wrong, or sizes differ.
        ReferenceImageError: the folder, a class or an image cannot be read.
        OutputError: `out` holds something else, or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    if PLACE not in template:
        raise FastgenError(f"template: got {template!r}; allowed: text with {PLACE}")
    for name, value, least in (("size", size, 8), ("shard_size", shard_size, 1)):
        if value is not None and value < least:
            raise FastgenError(f"{name}: got {value}; allowed: {least} or more")
    if not folder.is_dir():
        raise FastgenError(f"{folder}: no such folder; give one with a folder of images per class")
    names = tuple(classes) if classes is not None else tuple(map(folder_class, list_folders(folder)))
    if not names:
        raise FastgenError(f"{folder}: holds no folders; give one with a folder of images per class")
    header = Header.from_json(Header(name=out.name or "import", classes=names, provenance={"kind": method}).to_json())
    found = list(_find(folder.resolve(), header, method=method, template=template, size=size))
    signature = _signature(header, found, shard_size)
    layout = Layout(out)
    if out.is_dir() and check_signature(layout, signature) and layout.run.exists():
        say(f"{out}: these {len(found)} images are there already")
        return out
    if out.exists():
        raise OutputError(f"{out}: already exists; remove it or choose another name")
    command = shlex.join(["fastgen", "import", str(folder), "--out", str(out), "--method", method])
    with atomic_directory(out) as tmp:
        _write(Layout(tmp), header, found, signature, command=command)
    say(f"{out}: {len(found)} images of {len({one.row.class_ for one in found})} classes")
    return out


def _find(base: Path, header: Header, *, method: str, template: str, size: int | None) -> Iterator[Found]:
    """Yield every image of every class, in label order and by name, with its size."""
    places = match_names(header.classes, list_folders(base), f"folders in {base}")
    first: tuple[str, tuple[int, int]] | None = None
    for class_, place in places.items():
        for file in list_images(base / place, base):
            name = file.relative_to(base).as_posix()
            own = open_picture(file).size
            first = first or (name, own)
            if size is None and own != first[1]:
                raise FastgenError(
                    f"{base}: {first[0]} has {first[1][0]} x {first[1][1]} pixels and {name} {own[0]} x {own[1]}; "
                    "allowed: images of one size, or --size to give them one"
                )
            row = Row(
                id=name,
                class_=class_,
                label=header.label_of(class_),
                prompt=template.replace(PLACE, class_),
                seed=0,
                lambda_null=True,
                method=method,
                tags={"file": name, "file_sha256": sha256_file(file)},
            )
            yield Found(row=row, file=file, size=own if size is None else (size, size))
    if first is None:
        raise FastgenError(f"{base}: its class folders hold no images")


def _signature(header: Header, found: Sequence[Found], shard_size: int) -> dict[str, Any]:
    """Content of plan.json; images stand where a run has bank and engine."""
    content = sha256_json([[one.row.id, one.row.tags["file_sha256"]] for one in found])
    width, height = found[0].size
    arguments = ("refs", "shots", "policy", "steps", "guidance", "scheduler", "limit", "clip")
    return {
        "fastgen_plan": PLAN_FORMAT,
        "header": header.to_json(),
        "bank": {"sha256": content},
        "engine": {
            "name": "import",
            "fingerprint": sha256_json(["import", content, height, width]),
            "height": height,
            "width": width,
        },
        "seed": 0,
        "arguments": dict.fromkeys(arguments),
        "world": 1,
        "shard_size": shard_size,
    }


def _write(
    layout: Layout, header: Header, found: Sequence[Found], signature: dict[str, Any], *, command: str
) -> None:
    """Fill an empty output folder."""
    started = time.monotonic()
    lines = [plan_line(one.row) for one in found]
    write_signature(layout, signature)
    atomic_write_text(layout.plan, "".join(line + "\n" for line in lines))
    layout.shards.mkdir()
    identity = identity_of(signature)
    with ShardWriter(identity, rank=0) as writer:
        for shard, indices in rank_shards(identity, rank=0, rows=len(found)):
            planned = [PlanRow(index=i, line=lines[i], row=found[i].row) for i in indices]
            writer.begin(layout.shard(0, shard), planned, short=layout.shard(0, shard, 0), shard=shard)
            for i in indices:
                writer.write(_sample(found[i]))
            writer.finish()
    after = scan(layout, identity, rank=0, rows=len(found))
    seconds = round(time.monotonic() - started, 3)
    report = {
        "rank": 0,
        "counts": after.status,
        "made": len(found),
        "device": None,
        "seconds": seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "shards": after.files,
    }
    common = {
        "fastgen_run": RUN_FORMAT,
        "command": command,
        "versions": {"fastgen": __version__, "python": platform.python_version()},
        **{name: signature[name] for name in ("bank", "engine", "seed", "arguments", "world", "shard_size")},
        "classes": list(header.classes),
        "rows": len(found),
    }
    finish_rank(layout, report, rank=0, world=1, common=json.loads(json.dumps(common)))


def _sample(found: Found) -> Sample:
    """Read one image, uint8 (H, W, 3)."""
    picture = open_picture(found.file)
    if picture.size != found.size:
        picture = ImageOps.fit(picture, found.size, Image.Resampling.BICUBIC)
    image = np.asarray(picture)
    if (np.ptp(image.reshape(-1, 3), axis=0) <= FLAT_RANGE).all():
        return Sample(row=found.row, image=image, status=FLAT, reason="the whole image is one colour")
    return Sample(row=found.row, image=image, status=GOOD)
