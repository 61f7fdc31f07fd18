"""Whether the images of a run will fit on the disk, said before the first one is made."""

from fastgen.capacity import free_disk, size_text
from fastgen.errors import OutputError
from fastgen.shards.layout import Layout, Progress
from fastgen.shards.schema import RunIdentity

GZIP = 0.5
"""Size of a shard over that of its images, at least: generated images have texture in every pixel. Drawings with areas
of one colour come to less, but a run is refused only where it is sure not to fit."""


def check_disk(layout: Layout, identity: RunIdentity, before: Progress, *, rank: int, rows: int) -> None:
    """Refuse a run whose missing images cannot fit.

    What other ranks have to make counts too, because they usually share the disk. The size of a row is that of this
    rank's shards, or GZIP times that of its image while there are none.

    Args:
        layout: the output folder.
        identity: of the run.
        before: what this rank has.
        rank: of this process.
        rows: of the whole plan, or at least so many.

    Raises:
        OutputError: there is too little space.
    """
    files = layout.shard_files(unchecked=True)
    own = [path.stat().st_size for owner, _, path in files if owner == rank]
    others = (len(files) - len(own)) * identity.shard_size  # at most
    missing = max(0, rows - before.rows - others)
    image = identity.height * identity.width * 3
    needed = missing * (sum(own) / before.rows if before.rows else GZIP * image)
    free = free_disk(layout.out)
    if needed > free:
        raise OutputError(
            f"{layout.out}: about {size_text(needed)} are needed for {missing} images of {identity.height} x "
            f"{identity.width} pixels, {size_text(free)} are free on this disk; make room, or take another disk with "
            "--out, or fewer rows with --limit"
        )
