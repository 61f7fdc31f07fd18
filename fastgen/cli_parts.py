"""What the files of the command line share: kinds of arguments, and a group that turns errors into exit codes."""

import os
import signal
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
        except KeyboardInterrupt:
            click.echo("fastgen: stopped at once; run the same command again to go on", err=True)
            sys.exit(128 + signal.SIGINT)
        except MemoryError:
            click.echo("fastgen: the memory is full; give the job more of it, or run less at once", err=True)
            sys.exit(FastgenError.exit_code)
        except BrokenPipeError:
            # The reader (`head`, say) has what it wanted; Python must not complain again when it flushes on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as error:
            # A file system that fails where nobody expects it: an unmounted folder, a dying disk.
            where = f"{error.filename}: " if error.filename is not None else ""
            what = f"{where}{error.strerror or error}"
            click.echo(f"fastgen: {what}; check the path, its permissions and the disk", err=True)
            sys.exit(FastgenError.exit_code)
