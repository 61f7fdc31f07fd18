"""`fastgen run` and `fastgen plan`: a bank in, an output folder of shards (or the resolved rows) out.

The order of files is what survives a crash: plan.json and plan.jsonl first, then one shard after the other, then
run.json. Running again reads what is there and makes the rest.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.bank.read import open_bank
from fastgen.errors import FastgenError, OutputError
from fastgen.job import Job, StopSignal, job_share
from fastgen.production.progress import say
from fastgen.production.setup import (
    Arguments,
    EngineFacts,
    check_everything,
    count_lines,
    engine_facts,
    planned_rows,
    signature_of,
    write_plan,
)
from fastgen.production.work import RunReport, Work
from fastgen.records import Row
from fastgen.shards.layout import Layout, check_signature, rank_lock
from fastgen.shards.verify import identity_of

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

SHARD_SIZE = 256


def plan(
    bank: str | Path,
    *,
    engine: "str | Path | Engine | None" = None,
    refs: str | Path | None = None,
    shots: int | None = None,
    policy: str | float | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    scheduler: str | None = None,
    limit: int | None = None,
    clip: str | None = None,
) -> Iterator[Row]:
    """Yield the resolved rows that `run` would generate with the same arguments, without generating.

    Args: as `run`.

    Raises:
        FastgenError: as `run`; the bank is checked before the first row.
    """
    arguments = _arguments(bank, refs, shots, policy, seed, steps, guidance, scheduler, limit, clip)
    facts = engine_facts(engine)
    return planned_rows(arguments, check_everything(arguments, facts), facts)


def run(
    bank: str | Path,
    *,
    engine: "str | Path | Engine | None" = None,
    refs: str | Path | None = None,
    shots: int | None = None,
    policy: str | float | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    rank: int | None = None,
    world: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    scheduler: str | None = None,
    shard_size: int = SHARD_SIZE,
    limit: int | None = None,
    clip: str | None = None,
    quiet: bool = False,
) -> RunReport:
    """Generate the images of a bank into an output folder; called again, it makes what is missing.

    Args:
        bank: a JSONL file.
        engine: a folder, a name in engines/ or a loaded engine; None takes the only one in engines/.
        refs: folder with one folder of images per class, or "petworld"; None takes the bank's
            `defaults.refs`.
        shots: references per class, and n of AGS; None: as the bank says.
        policy: "ags", "uniform" or a number for every row with an image prompt; None: as the bank says.
        out: the output folder; None takes out/<name of the bank's file>.
        seed: of rows without a seed of their own, and of the choice of shots.
        rank: of this process; None asks SLURM, else 0.
        world: number of processes; every one makes its own rows of the same output folder.
        batch: rows denoised together; None takes the engine's. It does not change any image.
        steps: denoising steps of every row; None: as the row, the bank or the model says.
        guidance: guidance scale of every row, likewise.
        scheduler: of every row, likewise.
        shard_size: rows per shard.
        limit: stop the plan after that many rows.
        clip: scores references for AGS: a folder, or NAME=WEIGHTS of open_clip; None takes the model's own.
        quiet: print nothing.

    Returns:
        What was done. Rows that failed are in it; they are also rows of the shards.

    Raises:
        FastgenError: an argument, the bank, a reference folder or the engine is wrong, or the folder was
            started with other arguments.
        Interrupted: a signal stopped it; what was made is saved.
    """
    arguments = _arguments(bank, refs, shots, policy, seed, steps, guidance, scheduler, limit, clip)
    for name, value in (("--shard-size", shard_size), ("--batch", batch)):
        if value is not None and value < 1:
            raise FastgenError(f"got {name} {value}; allowed: 1 or more")
    job = job_share(rank, world)
    facts = engine_facts(engine)
    layout = Layout(Path(out) if out is not None else Path("out") / arguments.bank.stem)
    if layout.out.exists() and not layout.out.is_dir():
        raise OutputError(f"{layout.out}: is a file; give a folder with --out")
    tell = (lambda line: None) if quiet else say
    if job.world > 1 or job.source != "one process":
        tell(str(job))
    with StopSignal() as stop:
        signature = _ensure_plan(arguments, facts, layout, job=job, shard_size=shard_size, stop=stop, tell=tell)
        identity = identity_of(signature)
        with rank_lock(layout, job.rank):
            loaded = None if engine is None or isinstance(engine, str | Path) else engine
            work = Work(
                arguments=arguments,
                facts=facts,
                layout=layout,
                identity=identity,
                signature=signature,
                job=job,
                batch=batch,
                stop=stop,
                engine=loaded,
                quiet=quiet,
            )
            return work.finish()


def _ensure_plan(
    arguments: Arguments,
    facts: EngineFacts,
    layout: Layout,
    *,
    job: Job,
    shard_size: int,
    stop: StopSignal,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Make the plan unless it is there; returns the content of plan.json."""
    bank = open_bank(arguments.bank)
    signature = signature_of(arguments, bank, facts, world=job.world, shard_size=shard_size)
    if check_signature(layout, signature) and layout.plan.exists():
        return signature
    bank = check_everything(arguments, facts)
    write_plan(layout, signature, planned_rows(arguments, bank, facts), check=stop.check)
    tell(f"{layout.plan}: {count_lines(layout.plan)} rows planned")
    return signature


def _arguments(
    bank: str | Path,
    refs: str | Path | None,
    shots: int | None,
    policy: str | float | None,
    seed: int,
    steps: int | None,
    guidance: float | None,
    scheduler: str | None,
    limit: int | None,
    clip: str | None,
) -> Arguments:
    return Arguments(
        bank=Path(bank),
        refs=None if refs is None else str(refs),
        shots=shots,
        policy=policy,
        seed=seed,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        limit=limit,
        clip=clip,
    )
