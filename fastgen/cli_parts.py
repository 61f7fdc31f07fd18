"""What the files of the command line share: kinds of arguments, and a group that turns errors into exit codes."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from fastgen.errors import FastgenError

ExistingFile = click.Path(exists=True, dir_okay=False, path_type=Path)
ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)
AnyPath = click.Path(path_type=Path)


class Commands(click.Group):
    """A group whose commands end with one clear line and the right exit code instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; a `FastgenError` becomes its message and its exit code."""
        try:
            return super().invoke(ctx)
        except FastgenError as error:
            click.echo(f"fastgen: {error}", err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            # The reader (`head`, say) has what it wanted; Python must not complain again when it flushes on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
