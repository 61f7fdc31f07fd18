"""Images per second of a PyTorch DataLoader over shards, a folder of PNG files, and WebDataset's tar files.

Command:   OMP_NUM_THREADS=1 python bench/loader.py --sizes 64:12000 512:600
Hardware:  two cores of an AMD EPYC (virtual)
Result:    docs/loader.md: ShardStream reads 1.4 to 4.5 times the images/s of PNG files, 1.5 to 5.1 times WebDataset

All of them read the same images, in a new random order, as batches of 32 of uint8 tensors (3, H, W), and every epoch is
timed from the start of its workers to the last batch. The images are made up (soft shapes with grain), lossless
everywhere, and written by fastgen's own writer and `fastgen export`. Cold: after the system's page cache was dropped,
which takes root; warm: right after that. Contenders take turns, and the median of their epochs counts.

    stream      ShardStream: forward in the files, mixed in a buffer of 64 MiB
    index       ShardDataset with a random sampler: one read here, one there
    png         torchvision's ImageFolder with a random sampler
    webdataset  WebDataset with a shuffle buffer of 1000 samples (only if the package is installed)
"""

import argparse
import itertools
import json
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms.functional import pil_to_tensor  # noqa: E402

from bench.hardware import hardware  # noqa: E402
from bench.stand_in import smooth, write_run  # noqa: E402
from fastgen.dataset import ShardDataset, ShardStream  # noqa: E402
from fastgen.export.export import export  # noqa: E402
from fastgen.files import atomic_write_text  # noqa: E402

SIZES = {64: 4000, 512: 1000}
WORKERS = (0, 2)
BATCH = 32
BUDGET = 64 << 20
DROP = Path("/proc/sys/vm/drop_caches")


def prepare(folder: Path, side: int, count: int) -> None:
    """Write shards, PNG folder and tar files of the same images."""
    write_run(folder / "run", rows=count, shard_size=256, side=side, paint=smooth(side))
    for kind in ("image-folder", "webdataset"):
        export(folder / "run", folder / kind, to=kind, file_mib=64, say=lambda line: None)


def stream(folder: Path, workers: int) -> DataLoader:
    """Shards, forward."""
    return DataLoader(ShardStream(folder / "run", budget=BUDGET), batch_size=BATCH, num_workers=workers)


def index(folder: Path, workers: int) -> DataLoader:
    """Shards, here and there."""
    return DataLoader(ShardDataset(folder / "run"), batch_size=BATCH, num_workers=workers, shuffle=True)


def png(folder: Path, workers: int) -> DataLoader:
    """PNG files."""
    images = ImageFolder(str(folder / "image-folder"), transform=pil_to_tensor)
    return DataLoader(images, batch_size=BATCH, num_workers=workers, shuffle=True)


def tar_files(folder: Path, workers: int) -> DataLoader:
    """WebDataset."""
    import webdataset

    files = sorted(str(path) for path in (folder / "webdataset").glob("*.tar"))
    data = webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False).shuffle(1000)
    samples = data.decode("pil").to_tuple("png", "cls").map_tuple(pil_to_tensor)
    return DataLoader(samples, batch_size=BATCH, num_workers=workers)


CONTENDERS: dict[str, Callable[[Path, int], DataLoader]] = {
    "stream": stream,
    "index": index,
    "png": png,
    "webdataset": tar_files,
}


def measure(name: str, folder: Path, workers: int, count: int) -> dict[str, float]:
    """One epoch: images per second, and seconds to the first batch."""
    loader = CONTENDERS[name](folder, workers)
    start, first, images = time.perf_counter(), 0.0, 0
    for batch, labels in loader:
        first = first or time.perf_counter() - start
        images += len(labels)
        assert batch.dtype == torch.uint8
    seconds = time.perf_counter() - start
    assert images == count, f"{name} read {images} of {count} images"
    return {"images_per_second": round(images / seconds, 1), "first_batch_seconds": round(first, 3)}


def drop_caches() -> bool:
    """Empty the page cache; tells whether that was allowed."""
    os.sync()
    try:
        DROP.write_text("1")
    except OSError:
        return False
    return True


def size_of(folder: Path) -> float:
    """MiB of a folder's files."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20, 1)


def measure_size(folder: Path, side: int, count: int, turns: int) -> dict[str, Any]:
    """Every contender, worker count and cache, in turns: what else the machine does then falls on all of them."""
    found: dict[str, Any] = {"images": count}
    kinds = {"run/shards": "shards", "image-folder": "png", "webdataset": "webdataset"}
    found["mib"] = {name: size_of(folder / path) for path, name in kinds.items()}
    epochs: dict[tuple[str, int, str], list[dict[str, float]]] = defaultdict(list)
    for _, workers, name in itertools.product(range(turns), WORKERS, CONTENDERS):
        if drop_caches():
            epochs[name, workers, "cold"].append(measure(name, folder, workers, count))
        epochs[name, workers, "warm"].append(measure(name, folder, workers, count))
        print(f"{side:>4} {name:10} {workers} workers", epochs[name, workers, "warm"][-1], flush=True)
    for name, workers in itertools.product(CONTENDERS, WORKERS):
        caches = {cache: middle(epochs[name, workers, cache]) for cache in ("cold", "warm")}
        found.setdefault(name, {})[f"{workers} workers"] = caches
    return found


def middle(epochs: list[dict[str, float]]) -> dict[str, Any] | None:
    """Medians of all numbers, with the slowest and the fastest epoch; None of none."""
    if not epochs:
        return None
    rates = [epoch["images_per_second"] for epoch in epochs]
    return {name: median(epoch[name] for epoch in epochs) for name in epochs[0]} | {"range": [min(rates), max(rates)]}


def main() -> None:
    """Measure every size, print and write the JSON."""
    parser = argparse.ArgumentParser(description="Compare loaders of shards, PNG files and tar files.")
    parser.add_argument("--sizes", nargs="+", metavar="SIDE:COUNT", default=[f"{s}:{n}" for s, n in SIZES.items()])
    parser.add_argument("--turns", type=int, default=3, help="epochs of each, whose median counts")
    parser.add_argument("--folder", type=Path, help="keeps the images, and takes them if they are there")
    parser.add_argument("--prepare", action="store_true", help="only write the images")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "loader-cpu.json")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="webdataset")
    try:
        import webdataset  # noqa: F401
    except ImportError:
        print("webdataset is not installed (pip install webdataset): left out")
        del CONTENDERS["webdataset"]
    results = {}
    with tempfile.TemporaryDirectory(prefix="fastgen-loader-") as name:
        for size in options.sizes:
            side, count = map(int, size.split(":"))
            folder = (options.folder or Path(name)) / size.replace(":", "x")
            if not (folder / "webdataset").is_dir():
                prepare(folder, side, count)
            if not options.prepare:
                results[f"{side} x {side}"] = measure_size(folder, side, count, options.turns)
    if options.prepare:
        return
    report = {
        "command": shlex.join(["python", "bench/loader.py", *sys.argv[1:]]),
        "hardware": hardware("torch", "torchvision", "h5py", "pillow", "webdataset"),
        "settings": {
            "turns": options.turns,
            "batch": BATCH,
            "budget_mib": BUDGET >> 20,
            "cold": "page cache dropped before the epoch",
        },
        "results": results,
    }
    print(f"wrote {atomic_write_text(options.out, json.dumps(report, indent=2) + chr(10))}")


if __name__ == "__main__":
    main()
