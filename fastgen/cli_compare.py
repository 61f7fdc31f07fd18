"""The command `fastgen compare`."""

from pathlib import Path
from typing import Any

import click

from fastgen.cli_parts import AnyPath, ExistingFolder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=ExistingFolder)
@click.option("--against", required=True, help="lambda, prompts (sentences per class) or shots.")
@click.option("--out", required=True, type=AnyPath, help="The figure, a .png file.")
@click.option("--train", multiple=True, type=ExistingFolder, help="Of fastgen train, once per run; default: RUN/train.")
def compare(runs: tuple[Path, ...], **options: Any) -> None:
    """Draw accuracy and diversity of several evaluated runs against lambda, prompts or shots."""
    from fastgen.evaluate.compare import compare as compare_runs

    compare_runs(runs, **options)
    click.echo(options["out"])
