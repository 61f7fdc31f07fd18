"""Rows as a Hugging Face data set: Parquet files with the images in them, which `datasets.load_dataset` opens."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError
from fastgen.export.pictures import Picture

GROUP = 100
"""Rows of a row group: what a reader that wants one image has to read at least."""


def write_parquet(folder: Path, pictures: Iterator[Picture], classes: Sequence[str], *, most: int) -> None:
    """Write `data/train-00000-of-00003.parquet` and so on.

    Args:
        folder: empty.
        pictures: in the order of the rows.
        classes: names of the feature `label`.
        most: bytes of one file's images; a file ends with the row group that passes it.

    Raises:
        FastgenError: the package datasets is not installed.
    """
    import_datasets()
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = _schema(classes)
    (folder / "data").mkdir()
    parts: list[Path] = []
    while (first := next(pictures, None)) is not None:
        parts.append(folder / "data" / f"{len(parts)}.part")
        rest, size = chain([first], pictures), 0
        with ParquetWriter(parts[-1], schema) as writer:
            while size < most and (group := list(islice(rest, GROUP))):
                writer.write_table(pyarrow.Table.from_pylist([_row(picture) for picture in group], schema=schema))
                size += sum(len(picture.png) for picture in group)
    for number, part in enumerate(parts):
        part.rename(part.with_name(f"train-{number:05d}-of-{len(parts):05d}.parquet"))


def import_datasets() -> Any:
    """Return the package datasets.

    Raises:
        FastgenError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise FastgenError(
            f"--to huggingface needs the package datasets ({error}): pip install datasets. Without it, --to "
            'image-folder writes what load_dataset("imagefolder", data_dir=...) reads'
        ) from error
    return datasets


def _schema(classes: Sequence[str]) -> Any:
    """Arrow's types of the columns, with Hugging Face's features as metadata."""
    datasets = import_datasets()
    texts = ("row_id", "class", "prompt", "negative_prompt", "ref_id", "status", "reason", "meta")
    numbers = ("lambda", "clip_score", "lambda_mu", "lambda_sigma")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(classes))}
    features |= {name: datasets.Value("string") for name in texts}
    features |= {name: datasets.Value("float64") for name in numbers}
    features |= {"seed": datasets.Value("uint64"), "plan_index": datasets.Value("int64")}
    return datasets.Features(features).arrow_schema


def _row(picture: Picture) -> dict[str, Any]:
    name = f"{picture.fields['plan_index']:08d}.png"
    return {"image": {"bytes": picture.png, "path": name}, **picture.fields}
