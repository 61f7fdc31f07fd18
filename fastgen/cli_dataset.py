"""The command `fastgen dataset`."""

from pathlib import Path
from typing import Any

import click

from fastgen.cli_parts import AnyPath, ExistingFolder


@click.command()
@click.argument("name")
@click.argument("root", type=ExistingFolder)
@click.option("--out", required=True, type=AnyPath, help="Folder to make.")
@click.option("--split", default="halves", show_default=True, help="halves (DALDA's code) or official.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split.")
@click.option("--shots", type=int, help="Training images per class; default: all.")
@click.option("--val-per-class", type=int, default=0, show_default=True, help="Validation images per class.")
@click.option("--imbalance", type=float, help="Long tail: largest over smallest class; default: off.")
def dataset(name: str, root: Path, **options: Any) -> None:
    """Lay out a data set as class folders train, test and val.

    NAME: pets, caltech101, flowers102, aircraft, cars, cub (below ROOT as torchvision has them), or folder.
    """
    from fastgen.datasets.dataset import dataset as lay_out

    click.echo(lay_out(name, root, **options, say=lambda line: click.echo(line, err=True)))
