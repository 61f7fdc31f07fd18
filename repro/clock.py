"""How much CPU time a reproduction has taken, over all its resumptions."""

from pathlib import Path

from fastgen.files import atomic_write_text


def cpu_seconds(work: Path, more: float) -> float:
    """Adds to the CPU seconds spent so far, which are kept in `work`/seconds.txt, and returns their sum."""
    path = work / "seconds.txt"
    total = more + (float(path.read_text()) if path.is_file() else 0.0)
    atomic_write_text(path, f"{total}\n")
    return total
