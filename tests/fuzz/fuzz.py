"""Runs the fuzz targets, the same cases every time.

python -m tests.fuzz.fuzz --cases 210 --out bench/results/fuzz.json
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Kit


def fuzz(name: str, folder: Path, *, cases: int) -> Counter[int]:
    """Run a target that many times; returns how often each exit code came.

    Raises:
        AssertionError: or whatever else came out of the product: a bug.
    """
    kit, codes = Kit(folder), Counter[int]()

    @settings(
        max_examples=cases, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def case(data):
        codes[TARGETS[name](data.draw, kit).code] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged files
        case()
    return codes


def main() -> None:
    """Run all targets and write the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=210, help="of every target")
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: all")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    result = {
        "command": f"python -m tests.fuzz.fuzz --cases {options.cases}",
        "cases": 0,
        "tracebacks": 0,
        "exit_codes": {},
    }
    for name in options.target or TARGETS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            codes = fuzz(name, Path(folder), cases=options.cases)  # a traceback ends the command
        result["cases"] += codes.total()
        result["exit_codes"][name] = {str(code): codes[code] for code in sorted(codes)}
        print(f"{name}: {dict(codes)} in {time.monotonic() - started:.0f} s", flush=True)
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
