"""`fastgen demo`: the whole chain on the embedded model, from the engine to the report, in one folder."""

import platform
import time
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from fastgen.bank.read import open_bank
from fastgen.bank.write import write_bank
from fastgen.engine.build import build
from fastgen.errors import DataError
from fastgen.evaluate.inspect import inspect
from fastgen.evaluate.lambda_strip import LambdaStrip
from fastgen.evaluate.report import accuracy_table, write_report
from fastgen.petworld.dataset import export
from fastgen.plan.references import References, find_references
from fastgen.production.references import reference_loader
from fastgen.production.run import RunReport, run
from fastgen.records import Header, Row
from fastgen.shards.read import open_output
from fastgen.shards.verify import verify
from fastgen.train.command import train

SEEDS = 5
TEST_PER_CLASS = 10
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRIPS = (
    ("Beagle", "a photo of a pet"),
    ("Siamese", "a photo of a Siamese jumping on the beach"),
    ("Pomeranian", "a Pomeranian lying on the sofa"),
    ("Russian Blue", "a photo of a Russian Blue running in the snow"),
)


def demo(out: str | Path = "out/demo", *, bank: str | Path = "prompts/pets.jsonl", limit: int | None = None) -> Path:
    """Builds the embedded model, runs a bank, verifies it, trains with and without it, and writes a report.

    One real PetWorld picture per class is both the reference of the bank's prompts and the training set of the
    "real only" classifier; the test pictures come from another stream.

    Args:
        out: the folder; what is finished in it is not made again.
        bank: over the 37 breeds.
        limit: stop the plan after that many images.

    Returns:
        path of report.html.

    Raises:
        FastgenError: as the stages; DataError if rows failed or verify found damage.
    """
    to, console, started = Path(out), Console(), time.monotonic()
    console.rule("1 engine")
    engine = build("mini", say=console.print)
    console.rule("2 real images")
    data = export(to / "data", split="few-shot", shots=1, test_per_class=TEST_PER_CLASS)
    console.print(f"{data}: 1 training and {TEST_PER_CLASS} test pictures of each class")
    console.rule("3 run")
    refs = data / "train"
    report = run(bank, engine=engine, refs=refs, shots=1, out=to / "run", limit=limit)
    _check(to / "run", report)
    console.print(f"{to / 'run'}: verified")
    console.rule("4 train")
    metrics = train(data, synthetic=to / "run", out=to / "train", shots=1, seeds=SEEDS)
    console.rule("5 report")
    shown = inspect(to / "run", load_reference=reference_loader(to / "run"), console=console)
    page = write_report(
        to / "report",
        title="fastgen demo",
        metrics=metrics,
        contact_sheet=shown.contact_sheet,
        histograms=shown.histograms,
        strips=_strips(to, bank, engine, refs),
        facts=_facts(report, engine, time.monotonic() - started),
        command="make demo",
    )
    accuracy_table(metrics, console=console)
    console.print(f"report: {page}")
    return page


def _check(out: Path, report: RunReport) -> None:
    """Stops the demo when a row failed or the output is damaged."""
    problems = [*report.failures, *verify(out)]
    if problems:
        raise DataError(f"{out}: " + "\n".join(problems))


def _strips(to: Path, bank: str | Path, engine: Path, refs: Path) -> list[LambdaStrip]:
    """Runs a bank of its own in which only lambda changes, and gathers the pictures."""
    header = open_bank(bank).header
    references = find_references(refs, header, bank_dir=Path(bank).parent, shots=1)
    path = to / "lambda.jsonl"
    write_bank(path, header, _sweep(header, references))
    run(path, engine=engine, refs=refs, shots=1, out=to / "lambda", quiet=True)
    output = open_output(to / "lambda")
    images = {row["id"]: Image.fromarray(output.image(number)) for number, row in enumerate(output)}
    return [
        LambdaStrip(
            reference=references.of_class(name)[0].load(),
            prompt=prompt,
            lambdas=LAMBDAS,
            images=[images[_sweep_id(name, value)] for value in LAMBDAS],
        )
        for name, prompt in STRIPS
    ]


def _sweep(header: Header, references: References) -> list[Row]:
    """Image rows that share prompt, reference and seed and differ in lambda."""
    return [
        Row(
            id=_sweep_id(name, value),
            class_=name,
            label=header.label_of(name),
            prompt=prompt,
            seed=1,
            lambda_=value,
            ref=references.of_class(name)[0].as_ref(),
        )
        for name, prompt in STRIPS
        for value in LAMBDAS
    ]


def _sweep_id(name: str, value: float) -> str:
    return f"{name.lower().replace(' ', '-')}-{value:g}"


def _facts(report: RunReport, engine: Path, seconds: float) -> dict[str, Any]:
    speed = f"{report.images_per_second:.2f} images/s" if report.made else "made by an earlier run"
    return {
        "images": str(report.rows),
        "speed": speed,
        "engine": engine.name,
        "machine": f"{platform.machine()}, {platform.system()}",
        "demo in all": f"{seconds / 60:.1f} min",
    }
