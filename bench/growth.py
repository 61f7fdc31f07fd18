"""How opening, resuming, verifying and merging an output folder grow with its rows and its shards.

Command:   OMP_NUM_THREADS=1 python bench/growth.py
Result:    docs/growth.md

The images are of one colour (8 x 8), because what is measured is everything around them; plan, shards and reports come
from fastgen's own writer. Every measurement is a process of its own; its seconds count from after the imports,
and its memory is what it took beyond them. How long a run takes to its first batch is in bench/scale.py.

    open    open_output: the index over all rows and its size
    resume  what `fastgen run` does before it makes the next image: count the plan, read what is there, skip to the end
    verify  fastgen verify, the whole check
    merge   fastgen merge, and the first image and all labels of the merged file
    stream  ShardStream: from nothing to the first image, with a budget of 1 MiB
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hardware import hardware  # noqa: E402
from bench.stand_in import HEADER, flat, write_run  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402
from fastgen.production.plan_file import PlanReader, count_lines  # noqa: E402
from fastgen.shards.layout import Layout, missing_indices, rank_shards, read_signature, scan  # noqa: E402
from fastgen.shards.merge import merge, open_merged  # noqa: E402
from fastgen.shards.read import open_output  # noqa: E402
from fastgen.shards.verify import identity_of, verify  # noqa: E402

SIDE = 8
CELLS = ("1000:1", "10000:10", "100000:100", "1000000:1000", "100000:1", "100000:10", "100000:1000")


def peak() -> int:
    """Most memory that this process ever had, bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def measure_open(out: Path) -> dict[str, Any]:
    """The index."""
    output = open_output(out)
    arrays = (output.plan_index, output.of_file, output.places, output.labels, output.status)
    return {"rows": len(output), "index_bytes": sum(array.nbytes for array in arrays)}


def measure_resume(out: Path) -> dict[str, Any]:
    """A run that finds all its rows there but those of the last shard."""
    layout = Layout(out)
    identity, rows = identity_of(read_signature(layout)), count_lines(layout.plan)
    progress = scan(layout, identity, rank=0, rows=rows)
    shards = list(rank_shards(identity, rank=0, rows=rows))
    assert not any(missing_indices(progress, shard, indices) for shard, indices in shards)
    reader = PlanReader(layout, HEADER)
    reader.take([rows - 1])
    reader.close()
    return {}


def measure_verify(out: Path) -> dict[str, Any]:
    """The whole check."""
    assert verify(out) == []
    return {}


def measure_merge(out: Path) -> dict[str, Any]:
    """Writing the view, and reading it."""
    before, start = peak(), time.perf_counter()
    path = merge(out, to=out / "merged.h5")
    written, memory = time.perf_counter(), peak() - before
    with open_merged(path) as file:
        file["image"][len(file["image"]) // 2]
        image = time.perf_counter()
        assert (file["label"][()] >= 0).all()
    spent = {"write_seconds": written - start, "first_image_seconds": image - written}
    spent["labels_seconds"] = time.perf_counter() - image
    spent |= {"write_memory_mib": memory / 2**20}
    return {**{name: round(value, 3) for name, value in spent.items()}, "file_bytes": path.stat().st_size}


def measure_stream(out: Path) -> dict[str, Any]:
    """The first image."""
    from fastgen.dataset import ShardStream

    start = time.perf_counter()
    next(iter(ShardStream(out, budget=1 << 20)))
    return {"first_image_seconds": round(time.perf_counter() - start, 3)}


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "open": measure_open,
    "resume": measure_resume,
    "verify": measure_verify,
    "merge": measure_merge,
    "stream": measure_stream,
}


def alone(kind: str, out: Path) -> dict[str, Any]:
    """Measure in this process."""
    before, start = peak(), time.perf_counter()
    found = MEASURES[kind](out)
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 3), "memory_mib": round((peak() - before) / 2**20, 1), **found}


def run_apart(kind: str, out: Path) -> dict[str, Any]:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, "--alone", kind, "--folder", str(out)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure_cell(out: Path, *, rows: int, shards: int) -> dict[str, Any]:
    """Everything about one folder."""
    files = list((out / "shards").iterdir())
    assert len(files) == shards
    found: dict[str, Any] = {"rows": rows, "shards": shards, "folder_mib": sum(f.stat().st_size for f in files) >> 20}
    found["load_average"] = round(os.getloadavg()[0], 1)
    for kind in MEASURES:
        found[kind] = run_apart(kind, out)
        print(f"{rows:>9} rows {shards:>5} shards  {kind:6}  {found[kind]}", flush=True)
    return found


def table(results: list[dict[str, Any]]) -> str:
    """The table of docs/growth.md."""
    names = "rows|shards|open, s|index, MiB|resume, s|resume, MiB|verify, s|verify, MiB|merge, s|merge, MiB|view, MiB|"
    names += "labels, s|labels, MiB|stream, s|load"
    lines = ["| " + names.replace("|", " | ") + " |", "|---" * 15 + "|"]
    for cell in results:
        merged = cell["merge"]
        values = [
            f"{cell['rows']:,}".replace(",", " "),
            cell["shards"],
            f"{cell['open']['seconds']:.2f}",
            f"{cell['open']['index_bytes'] / 2**20:.2f}",
            f"{cell['resume']['seconds']:.2f}",
            f"{cell['resume']['memory_mib']:.0f}",
            f"{cell['verify']['seconds']:.1f}",
            f"{cell['verify']['memory_mib']:.0f}",
            f"{merged['write_seconds']:.2f}",
            f"{merged['write_memory_mib']:.0f}",
            f"{merged['file_bytes'] / 2**20:.2f}",
            f"{merged['labels_seconds']:.2f}",
            f"{merged['memory_mib']:.0f}",
            f"{cell['stream']['first_image_seconds']:.2f}",
            cell["load_average"],
        ]
        lines.append("| " + " | ".join(map(str, values)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every folder, print and write the JSON."""
    parser = argparse.ArgumentParser(description="Measure how folders grow.")
    parser.add_argument("--cells", nargs="+", metavar="ROWS:SHARDS", default=CELLS)
    parser.add_argument("--folder", type=Path, help="keeps the folders, and takes them if they are there")
    parser.add_argument("--prepare", action="store_true", help="only write the folders")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "growth-cpu.json")
    parser.add_argument("--alone", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.alone, options.folder)))
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    results = []
    with tempfile.TemporaryDirectory(prefix="fastgen-growth-") as name:
        for cell in options.cells:
            rows, shards = map(int, cell.split(":"))
            out = (options.folder or Path(name)) / f"{rows}-{shards}"
            if not (out / "run.json").exists():
                start = time.perf_counter()
                write_run(out, rows=rows, shard_size=-(-rows // shards), side=SIDE, paint=flat(SIDE))
                print(f"{cell}: written in {time.perf_counter() - start:.1f} s", flush=True)
            if not options.prepare:
                results.append(measure_cell(out, rows=rows, shards=shards))
    if options.prepare:
        return
    report = {
        "command": shlex.join(["python", "bench/growth.py", *sys.argv[1:]]),
        "hardware": {**hardware("numpy", "h5py"), "open_files": soft if soft == hard else [soft, hard]},
        "results": results,
    }
    print(table(results))
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
