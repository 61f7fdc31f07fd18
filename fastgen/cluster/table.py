"""The status of a run as lines for a terminal, and times as SLURM writes them."""

from collections.abc import Iterator

from fastgen.cluster.status import RunStatus


def clock(seconds: float) -> str:
    """Return 3:20, 4:03:20 or 2-04:03:20, as SLURM writes times."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}-{hour:02d}:{minute:02d}:{second:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def table(found: RunStatus) -> Iterator[str]:
    """The status as lines for a terminal."""
    rows = "?" if found.rows is None else str(found.rows)
    yield f"{found.out}: {found.done} of {rows} rows done" + (", finished" if found.finished else "")
    yield f"{'rank':>6} {'done':>19} {'failed':>7} {'images/s':>9} {'left':>10}  state"
    for rank in found.ranks:
        of = "?" if rank.rows is None else str(rank.rows)
        failed = "-" if rank.failed is None else str(rank.failed)
        rate = "-" if not rank.images_per_second else f"{rank.images_per_second:.3g}"
        left = "-" if rank.seconds_left is None else clock(rank.seconds_left)
        note = f" ({rank.note})" if rank.note else ""
        yield f"{rank.rank:>6} {f'{rank.done} / {of}':>19} {failed:>7} {rate:>9} {left:>10}  {rank.state}{note}"
    left = "-" if found.seconds_left is None else clock(found.seconds_left)
    rate = f"{found.images_per_second:.3g}" if found.images_per_second else "-"
    yield f"{'all':>6} {f'{found.done} / {rows}':>19} {found.failed:>7} {rate:>9} {left:>10}"
