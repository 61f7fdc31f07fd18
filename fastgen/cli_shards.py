"""The commands that hand shards on to other programs: `fastgen export` and `fastgen merge`."""

from pathlib import Path
from typing import Any

import click

from fastgen.cli_parts import AnyPath, ExistingFolder


@click.command()
@click.argument("out", type=ExistingFolder)
@click.argument("dest", type=AnyPath)
@click.option("--to", required=True, help="image-folder, webdataset or huggingface (Parquet; needs datasets).")
@click.option("--failed", is_flag=True, help="Also rows without a good image, which are black.")
@click.option("--file-mib", type=int, default=256, show_default=True, help="Size of a tar or Parquet file.")
def export(out: Path, dest: Path, **options: Any) -> None:
    """Write the good rows of an output folder to DEST as another kind of data set, whole or not at all."""
    from fastgen.export.export import export as export_output

    click.echo(export_output(out, dest, **options, say=lambda line: click.echo(line, err=True)))


@click.command()
@click.argument("out", type=ExistingFolder)
@click.option("--to", required=True, type=AnyPath, help="The HDF5 file to write; it and OUT may move only together.")
def merge(out: Path, to: Path) -> None:
    """Write one HDF5 file over all shards, rows in plan order, without copying: its datasets are virtual."""
    from fastgen.shards.merge import merge as merge_output

    click.echo(merge_output(out, to=to))


def add_shards_commands(group: click.Group) -> None:
    """Add the commands of this file to a group."""
    for command in (export, merge):
        group.add_command(command)
