"""`fastgen run` and `fastgen plan`: a bank in, an output folder of shards (or the resolved rows) out.

The order of files is what survives a crash: plan.json and plan.jsonl first, then one shard after the other, then
run.json. Running again reads what is there and makes the rest. A bank that takes minutes to check is checked and
planned in another process meanwhile; until that has passed, no shard has a final name.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.engine.load import check_provider
from fastgen.errors import FastgenError, OutputError
from fastgen.job import StopSignal, job_share
from fastgen.production.bank_check import BankCheck, Order, is_long, is_long_plan
from fastgen.production.plan_file import count_lines, write_plan
from fastgen.production.progress import say
from fastgen.production.setup import (
    Arguments,
    EngineFacts,
    bank_of,
    check_everything,
    engine_facts,
    planned_rows,
    signature_of,
)
from fastgen.production.work import RunReport, Work
from fastgen.records import Row
from fastgen.shards.claim import rank_lock
from fastgen.shards.layout import Layout, check_signature
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
    guidance_interval: str | None = None,
    scheduler: str | None = None,
    limit: int | None = None,
    clip: str | None = None,
    profile: str | None = None,
) -> Iterator[Row]:
    """Yield the resolved rows that `run` would generate with the same arguments, without generating.

    Args: as `run`.

    Raises:
        FastgenError: as `run`. A bank of at most 100 000 rows is checked before the first row; a longer one meanwhile,
            and what is wrong with it is raised while iterating, at the latest after the last row.
    """
    arguments = _arguments(
        bank, refs, shots, policy, seed, steps, guidance, scheduler, limit, clip, profile, guidance_interval
    )
    facts = engine_facts(engine)
    if is_long(arguments.bank):
        return _plan_unchecked(arguments, facts)
    return planned_rows(arguments, check_everything(arguments, facts)[0], facts)


def _plan_unchecked(arguments: Arguments, facts: EngineFacts) -> Iterator[Row]:
    rows = planned_rows(arguments, bank_of(arguments), facts)
    with BankCheck(Order(arguments=arguments, facts=facts)) as check:
        try:
            for number, row in enumerate(rows):
                if number % 1000 == 0:
                    check.passed()
                yield row
        except FastgenError:
            check.wait()  # it lists more than this one problem
            raise
        check.wait()


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
    guidance_interval: str | None = None,
    scheduler: str | None = None,
    provider: str = "auto",
    shard_size: int = SHARD_SIZE,
    limit: int | None = None,
    clip: str | None = None,
    profile: str | None = None,
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
        guidance_interval: "LO-HI", shares of the schedule between which every row has guidance.
        scheduler: of every row, likewise.
        provider: where ONNX Runtime computes: "auto" (on the GPU if it can), "cpu" or "cuda".
        shard_size: rows per shard.
        limit: stop the plan after that many rows.
        clip: scores references for AGS: a folder, or NAME=WEIGHTS of open_clip; None takes the model's own.
        profile: "dalda-paper" or "dalda-official", in place of what the bank says where the two differ: the options
            of AGS, the fit of references, and the mode of seeds.
        quiet: print nothing.

    Returns:
        What was done. Rows that failed are in it; they are also rows of the shards.

    Raises:
        FastgenError: an argument, the bank, a reference folder or the engine is wrong, or the folder was
            started with other arguments.
        Interrupted: a signal stopped it; what was made is saved.
    """
    arguments = _arguments(
        bank, refs, shots, policy, seed, steps, guidance, scheduler, limit, clip, profile, guidance_interval
    )
    _check_counts(("--shard-size", shard_size), ("--batch", batch))
    job = job_share(rank, world)
    facts = engine_facts(engine)
    _check_provider(provider, facts)
    layout = _layout(out, arguments)
    tell = (lambda line: None) if quiet else say
    if job.world > 1 or job.source != "one process":
        tell(str(job))
    with StopSignal() as stop:
        signature = signature_of(arguments, bank_of(arguments), facts, world=job.world, shard_size=shard_size)
        is_planned = _ensure_plan(arguments, facts, layout, signature=signature, stop=stop, tell=tell)
        order = Order(arguments=arguments, facts=facts, layout=layout, signature=signature)
        loaded = None if engine is None or isinstance(engine, str | Path) else engine
        with rank_lock(layout, job.rank, say=tell), nullcontext() if is_planned else BankCheck(order) as check:
            work = Work(
                arguments=arguments, facts=facts, layout=layout, identity=identity_of(signature), signature=signature,
                job=job, check=check, batch=batch, provider=provider, stop=stop, engine=loaded, quiet=quiet,
            )  # fmt: skip
            return work.finish()


def _check_counts(*counts: tuple[str, int | None]) -> None:
    for name, value in counts:
        if value is not None and value < 1:
            raise FastgenError(f"got {name} {value}; allowed: 1 or more")


def _check_provider(provider: str, facts: EngineFacts) -> None:
    if facts.folder is not None:
        check_provider(provider, facts.spec.backend)
    elif provider != "auto":
        raise FastgenError(f"got provider {provider!r} with a loaded engine: give it to load_engine")


def _layout(out: str | Path | None, arguments: Arguments) -> Layout:
    """The output folder, which may not be a file."""
    layout = Layout(Path(out) if out is not None else Path("out") / arguments.bank.stem)
    if layout.out.exists() and not layout.out.is_dir():
        raise OutputError(f"{layout.out}: is a file; give a folder with --out")
    return layout


def _ensure_plan(
    arguments: Arguments,
    facts: EngineFacts,
    layout: Layout,
    *,
    signature: dict[str, Any],
    stop: StopSignal,
    tell: Callable[[str], None],
) -> bool:
    """Make the plan unless it is there, or too long to wait for; tells whether it is there now."""
    if check_signature(layout, signature) and layout.plan.exists():
        return True
    if not is_long(arguments.bank):
        bank, rows = check_everything(arguments, facts, check=stop.check)
        if not is_long_plan(rows):
            write_plan(layout, signature, planned_rows(arguments, bank, facts), check=stop.check)
            tell(f"{layout.plan}: {count_lines(layout.plan)} rows planned")
            return True
    tell(f"{arguments.bank}: shards get their final names when its many rows are all checked and planned")
    return False


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
    profile: str | None,
    guidance_interval: str | None,
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
        profile=profile,
        guidance_interval=guidance_interval,
    )
