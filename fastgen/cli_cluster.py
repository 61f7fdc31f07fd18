"""The commands for a cluster: `fastgen submit` and `fastgen status`; both work on a login node without torch."""

import json
from pathlib import Path
from typing import Any

import click

from fastgen.errors import FastgenError

TAKES_THE_REST = {"ignore_unknown_options": True}


def add_cluster_commands(main: click.Group) -> None:
    """Register the commands."""
    main.add_command(submit)
    main.add_command(status)


@click.command(context_settings=TAKES_THE_REST)
@click.option("--array", type=int, default=1, show_default=True, help="Tasks of the job array.")
@click.option("--tasks", type=int, default=1, show_default=True, help="Processes of every job, on one node.")
@click.option("--gpus", type=int, default=1, show_default=True, help="GPUs of every process; 0 for none.")
@click.option("--cpus", type=int, help="CPU cores of every process.")
@click.option("--mem", help="Memory of every job, such as 32G.")
@click.option("--time", help="Time limit of every job, such as 4:00:00; saved and requeued when it ends.")
@click.option("--partition", help="Partition of the cluster.")
@click.option("--account", help="Account that pays.")
@click.option("--after", metavar="JOB", help="Start when this job has succeeded: the build of the engine, say.")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="Another option of sbatch; may be repeated.")
@click.option("--setup", multiple=True, metavar="LINE", help="Shell line before the run: module load ...; repeatable.")
@click.option("--program", help="How a job calls fastgen, such as 'apptainer exec --nv x.sif fastgen'.")
@click.option("--dry-run", is_flag=True, help="Print the script; write and submit nothing.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def submit(ctx: click.Context, run_options: tuple[str, ...], **options: Any) -> None:
    """Submit a run to SLURM: an array of jobs with one process per GPU, requeued until all is done.

    Takes every option of `fastgen run` beside its own, but no --rank and no --world: the run is shared by
    array x tasks processes.
    """
    from fastgen.cluster.submit import submit as submit_run

    found = submit_run(run_options, **_run_parameters(ctx, run_options), **options)
    if found.job is None:
        click.echo(found.text, nl=False)
    else:
        click.echo(f"job {found.job} submitted: {found.script}; fastgen status {found.script.parent.parent} follows it")


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(out: Path, as_json: bool) -> None:
    """Show how far every rank of a run is: rows, failed rows, speed, time left. Reads only; works anywhere."""
    from fastgen.cluster.status import status as status_of
    from fastgen.cluster.table import table

    found = status_of(out)
    for line in [json.dumps(found.to_json(), indent=1)] if as_json else table(found):
        click.echo(line)


def _run_parameters(ctx: click.Context, words: tuple[str, ...]) -> dict[str, Any]:
    """Let `fastgen run` itself read its options, so that what it would refuse is refused before the job waits."""
    assert ctx.parent is not None and isinstance(ctx.parent.command, click.Group)
    run = ctx.parent.command.get_command(ctx, "run")
    assert run is not None
    parameters = run.make_context("run", list(words), parent=ctx.parent).params
    for name in ("rank", "world"):
        if parameters[name] is not None:
            raise FastgenError(f"got --{name}: fastgen submit numbers the processes itself; give --array and --tasks")
    return {name: parameters[name] for name in ("bank", "engine", "out")}
