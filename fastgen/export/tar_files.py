"""Rows as WebDataset reads them: tar files of bounded size, every sample a .png, a .cls and a .json of one name."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from fastgen.export.pictures import Picture, json_line

_BLOCK = 512
_END = 10240


def write_tar_files(folder: Path, pictures: Iterator[Picture], classes: Sequence[str], *, most: int) -> None:
    """Write `000000.tar`, `000001.tar`, ... and classes.json.

    Two exports of the same rows are the same to the last bit: members have no times and no owner.

    Args:
        folder: empty.
        pictures: in the order of the samples.
        classes: names; `.cls` counts in them.
        most: bytes of one file; only a sample that is larger by itself makes a larger one.
    """
    count, size = 0, most + 1
    with ExitStack() as stack:
        for picture in pictures:
            key = f"{picture.fields['plan_index']:08d}"
            members = {
                f"{key}.png": picture.png,
                f"{key}.cls": str(picture.fields["label"]).encode(),
                f"{key}.json": json_line(picture.fields).encode(),
            }
            needed = sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for data in members.values())
            if size + needed + _END > most:
                stack.close()
                name = folder / f"{count:06d}.tar"
                tar = stack.enter_context(tarfile.open(name, "x", format=tarfile.USTAR_FORMAT))
                count, size = count + 1, 0
            size += needed
            for name_in_tar, data in members.items():
                info = tarfile.TarInfo(name_in_tar)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "classes.json").write_text(json_line(list(classes)) + "\n", encoding="utf-8")
