"""Writes an output folder in a form that other programs read: the function behind `fastgen export OUT DEST`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastgen.errors import FastgenError
from fastgen.export.image_folder import write_image_folder
from fastgen.export.parquet import import_datasets, write_parquet
from fastgen.export.pictures import Picture, pictures
from fastgen.export.tar_files import write_tar_files
from fastgen.files import atomic_directory
from fastgen.job import StopSignal
from fastgen.shards.read import open_output

KINDS = ("image-folder", "webdataset", "huggingface")
FILE_MIB = 256
TOLD = 10_000
"""Images between two lines of progress."""


def export(
    out: str | Path,
    dest: str | Path,
    *,
    to: str,
    failed: bool = False,
    file_mib: int = FILE_MIB,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the rows of an output folder as another kind of data set, whole or not at all.

    Args:
        out: the folder that `fastgen run` wrote, finished or not.
        dest: folder to make.
        to: "image-folder": `<class>/<number>.png` and metadata.jsonl, for torchvision's ImageFolder and Hugging Face's
            imagefolder; "webdataset": tar files; "huggingface": Parquet files, with the package datasets.
        failed: also the rows whose status is not good, with black images; without it they are left out.
        file_mib: size of a tar or Parquet file in MiB, >= 1.
        say: gets a line at the start and at the end.

    Returns:
        `dest` as a path.

    Raises:
        FastgenError: `to` is unknown or needs a package, or no row is left.
        OutputError: `dest` exists or cannot be written, or a shard is damaged.
        Interrupted: a signal came in; nothing was written.
    """
    if to not in KINDS:
        raise FastgenError(f"got --to {to}; allowed: {', '.join(KINDS)}")
    if file_mib < 1:
        raise FastgenError(f"got --file-mib {file_mib}; allowed: 1 or more")
    if to == "huggingface":
        import_datasets()
    output = open_output(out)
    numbers = np.arange(len(output)) if failed else output.good
    if not len(numbers):
        raise FastgenError(f"{out}: none of its {len(output)} rows is good; see fastgen verify {out}, or give --failed")
    if output.run is None:
        say(f"{out}: the run is not finished; what is there is exported")
    write: dict[str, Callable[..., Any]] = {
        "image-folder": write_image_folder,
        "webdataset": partial(write_tar_files, most=file_mib << 20),
        "huggingface": partial(write_parquet, most=file_mib << 20),
    }
    with atomic_directory(dest) as folder, StopSignal() as stop:
        rows = _watched(pictures(output, numbers), len(numbers), stop=stop, say=say)
        write[to](folder, rows, output.classes)
        stop.check("nothing was written")
    left = f", {len(output) - len(numbers)} failed rows left out" if len(numbers) < len(output) else ""
    say(f"{dest}: {len(numbers)} images{left}")
    return Path(dest)


def _watched(rows: Iterator[Picture], total: int, *, stop: StopSignal, say: Callable[[str], None]) -> Iterator[Picture]:
    """Pass rows on, telling how far they are; a signal stops them."""
    for done, row in enumerate(rows):
        stop.check("nothing was written")
        if done and done % TOLD == 0:
            say(f"{done} of {total} images")
        yield row
