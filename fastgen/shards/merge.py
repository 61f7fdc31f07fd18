"""One HDF5 file over all shards: `fastgen merge OUT --to FILE.h5` writes it, and h5py alone reads it.

Its datasets are virtual: they have no data of their own and name the places in the shards, by paths relative to FILE.
HDF5 does not complain when a shard is gone, it fills in: so every column has a filling that no row can have, and
`open_merged` looks for all shards first.
"""

import io
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastgen import __version__
from fastgen.errors import OutputError
from fastgen.files import atomic_write_bytes
from fastgen.shards.read import Output, open_output
from fastgen.shards.schema import COLUMNS, NUMBERS, TEXTS
from fastgen.shards.shard_file import ShardFile

FORMAT = 1
SHARED = ("classes", "status_names", "bank_sha256", "engine_fingerprint", "plan_id", "world")
"""Attributes that all shards of a run have in common."""

FILLINGS: dict[str, Any] = {"label": -1, "status": -1, "plan_index": -1}
LIBVER = ("v110", "v110")
SPARE_FILES = 64


def merge(out: str | Path, *, to: str | Path) -> Path:
    """Write one HDF5 file whose datasets are those of all shards, rows in plan order.

    Args:
        out: the folder that `fastgen run` wrote; of an unfinished run, the rows that are there.
        to: the file; one that is there is replaced. It and `out` may move only together.

    Returns:
        `to` as a path.

    Raises:
        OutputError: no shards, a shard is damaged, shards of different runs, rows that are there twice, or `to`
            cannot be written.
    """
    target, output = Path(to), open_output(out)
    if (np.diff(output.plan_index) == 0).any():
        raise OutputError(f"{out}: rows are there more than once; fastgen verify {out} says which")
    if target.resolve().parent == (output.path / "shards").resolve():
        raise OutputError(f"{target}: lies among the shards; choose another folder, such as {output.path}")
    paths = [os.path.relpath(path.resolve(), target.parent.resolve()) for path in output.files]
    facts, runs = _facts(output), list(_runs(output))
    memory = io.BytesIO()
    for name in ("image", *COLUMNS):
        with h5py.File(memory, "a", libver=LIBVER) as file:  # HDF5 keeps kilobytes per mapping until a file is closed
            _add_virtual(file, name, paths, runs, facts=facts, rows=len(output))
    with h5py.File(memory, "a", libver=LIBVER) as file:
        _write_facts(file, facts, paths)
    return atomic_write_bytes(target, memory.getvalue())


def open_merged(path: str | Path) -> h5py.File:
    """Open a merged file for reading, sure that all its shards are where it expects them.

    Raises:
        OutputError: not a merged file, a shard is gone or another one, or the process may not open so many files.
    """
    try:
        file = h5py.File(path, "r", locking=False)
        version = file.attrs.get("fastgen_merged")
        if version != FORMAT:
            raise ValueError(f"format version is {version}, this fastgen reads version {FORMAT}")
        shards = {name: file[f"shards/{name}"] for name in ("path", "rows", "sha256")}
        listed = list(zip(shards["path"].asstr()[()], shards["rows"][()], shards["sha256"][()], strict=True))
    except Exception as error:  # on damaged data h5py raises nearly anything
        raise OutputError(f"{path}: not a file of fastgen merge ({error})") from error
    for name, rows, digest in listed:
        _check_shard(Path(path), name, int(rows), digest.decode())
    _allow_files(len(listed))
    return file


def _check_shard(merged: Path, name: str, rows: int, digest: str) -> None:
    shard = merged.resolve().parent / name
    again = f"move {merged.name} and the output folder together, or run fastgen merge again"
    if not shard.exists():
        raise OutputError(f"{merged}: its shard {shard} is gone; {again}")
    with ShardFile(shard) as file:
        if len(file) != rows or file.attributes["sha256"] != digest:
            raise OutputError(f"{merged}: its shard {shard} is another one now; {again}")


def _allow_files(shards: int) -> None:
    """HDF5 keeps every shard open that it has read from, and fills in where it may not open one more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = shards + SPARE_FILES
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    if hard < needed:
        raise OutputError(
            f"{shards} shards may have to be open at once, this process may open {hard} files; raise the limit "
            f"(ulimit -n {needed}), or read the folder with open_output"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _facts(output: Output) -> dict[str, Any]:
    """Attributes of the run, rows and sha256 of every shard, shape of the images."""
    facts: dict[str, Any] = {"rows": [], "sha256": []}
    for path in output.files:
        with ShardFile(path) as file:
            shared = {name: file.attributes[name] for name in SHARED}
            shape = file.image_type[1][1:]
            facts.setdefault("attributes", shared)
            facts.setdefault("shape", shape)
            if (shared, shape) != (facts["attributes"], facts["shape"]):
                raise OutputError(f"{path}: is of another run than {output.files[0].name}; fastgen verify says more")
            facts["rows"].append(len(file))
            facts["sha256"].append(file.attributes["sha256"])
    return facts


def _runs(output: Output) -> Iterator[tuple[int, slice, slice]]:
    """Yield (file, places in it, rows of the output): both slices go forward in even steps."""
    order = np.argsort(output.of_file, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(output.of_file[order])) + 1):
        places, start = output.places[rows], 0
        while start < len(rows):
            step = int(rows[start + 1] - rows[start]) if start + 1 < len(rows) else 1
            uneven = np.flatnonzero((np.diff(rows[start:]) != step) | (np.diff(places[start:]) != 1))
            stop = start + (int(uneven[0]) + 1 if len(uneven) else len(rows) - start)
            first, last = int(rows[start]), int(rows[stop - 1])
            place = int(places[start])
            yield int(output.of_file[first]), slice(place, place + stop - start), slice(first, last + 1, step)
            start = stop


def _add_virtual(
    file: h5py.File,
    name: str,
    paths: list[str],
    runs: list[tuple[int, slice, slice]],
    *,
    facts: dict[str, Any],
    rows: int,
) -> None:
    """Add a dataset that is mapped to the shards, by HDF5's own functions: h5py's take ten times as long."""
    dtype = np.dtype(np.uint8) if name == "image" else NUMBERS.get(name, h5py.string_dtype("utf-8"))
    inner = tuple(facts["shape"]) if name == "image" else ()
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.VIRTUAL)
    if (filling := _filling(name)) is not None:
        settings.set_fill_value(np.array([filling]))
    whole = h5py.h5s.create_simple((rows, *inner))
    for number, places, target in runs:
        source = h5py.h5s.create_simple((facts["rows"][number], *inner))
        _select(source, places, inner)
        _select(whole, target, inner)
        settings.set_virtual(whole, os.fsencode(paths[number]), name.encode(), source)
    whole.select_all()
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), whole, settings)


def _select(space: Any, rows: slice, inner: tuple[int, ...]) -> None:
    """Select rows, each as a whole, in an HDF5 dataspace of (N, *inner)."""
    ones, step = (1,) * len(inner), rows.step or 1
    count = len(range(rows.start, rows.stop, step))
    space.select_hyperslab((rows.start, *(0,) * len(inner)), (count, *ones), (step, *inner), (1, *inner))


def _filling(name: str) -> Any:
    """What no row can have in this column, or None where HDF5's own filling does."""
    if name in TEXTS or name in ("image", "image_sha256"):
        return None
    return FILLINGS.get(name, np.nan if NUMBERS[name].kind == "f" else 0)


def _write_facts(file: h5py.File, facts: dict[str, Any], paths: list[str]) -> None:
    """Add the attributes of the run, and what `open_merged` looks for."""
    text = h5py.string_dtype("utf-8")
    for name in SHARED:
        value = facts["attributes"][name]
        is_list = isinstance(value, list)
        file.attrs.create(name, np.array(value, object) if is_list else value, dtype=text if is_list else None)
    file.attrs.update({"fastgen_merged": FORMAT, "fastgen_version": __version__})
    file.create_dataset("shards/path", data=np.array(paths, object), dtype=text)
    file.create_dataset("shards/rows", data=np.array(facts["rows"], np.int64))
    file.create_dataset("shards/sha256", data=np.array(facts["sha256"], "S64"))
