"""One rank's share of a run: what it has, what it lacks, the making of it, and the report."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen import __version__
from fastgen.bank.read import open_bank
from fastgen.engine.load import load_engine
from fastgen.generate.encode import Encoder
from fastgen.generate.run import generate
from fastgen.job import Job, StopSignal
from fastgen.production.progress import RunProgress
from fastgen.production.setup import Arguments, EngineFacts, PlanReader, count_lines, references_of
from fastgen.shards.layout import (
    RUN_FORMAT,
    Layout,
    Progress,
    finish_rank,
    missing_indices,
    missing_ranks,
    rank_shards,
    reopen,
    scan,
)
from fastgen.shards.read import ShardFile
from fastgen.shards.schema import GOOD, STATUS_NAMES, PlanRow, RunIdentity, rank_rows
from fastgen.shards.write import ShardWriter

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "h5py", "onnxruntime", "tensorrt")
FAILURES_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did.

    Attributes:
        out: the output folder.
        rank, world: which share of the rows was this process's.
        rows: rows of this rank.
        made: images made by this process; the others were there before.
        counts: rows of this rank by status name.
        failures: the first failed rows of this rank, as "row 'id': status: reason".
        seconds: spent on generating, by this process.
        complete: every rank has finished: run.json is there.
    """

    out: Path
    rank: int
    world: int
    rows: int
    made: int
    counts: dict[str, int]
    failures: list[str] = field(default_factory=list)
    seconds: float
    complete: bool

    @property
    def failed(self) -> int:
        """Rows of this rank without a good image."""
        return self.rows - self.counts["good"]

    @property
    def images_per_second(self) -> float:
        """Rate of this process; 0 if it made nothing."""
        return self.made / self.seconds if self.made and self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tools:
    """What the making of images needs, open for as long as it lasts."""

    engine: "Engine"
    encoder: Encoder
    plan: PlanReader
    writer: ShardWriter
    progress: RunProgress


@dataclass(kw_only=True)
class Work:
    """One rank of a run whose plan is written and whose lock is held.

    Args:
        arguments: as the user typed them.
        facts: of the engine.
        layout: the output folder.
        identity: what the shards of the run have in common.
        signature: content of plan.json.
        job: rank and world.
        batch: rows denoised together, or None.
        stop: asked between batches.
        engine: a loaded engine, or None to load it when there is something to make.
        quiet: print nothing.
    """

    arguments: Arguments
    facts: EngineFacts
    layout: Layout
    identity: RunIdentity
    signature: dict[str, Any]
    job: Job
    batch: int | None
    stop: StopSignal
    engine: "Engine | None"
    quiet: bool

    @cached_property
    def total(self) -> int:
        """Rows of the whole plan."""
        return count_lines(self.layout.plan)

    @property
    def rows(self) -> int:
        """Rows of this rank."""
        return rank_rows(self.job.rank, self.job.world, self.total)

    def finish(self) -> RunReport:
        """Make what is missing, then write the reports.

        Raises:
            Interrupted: a signal came in; the rows made so far are published.
        """
        before = self._scan()
        progress = RunProgress(rows=self.rows, done=before.rows, quiet=self.quiet)
        if before.rows < self.rows:
            reopen(self.layout, self.job.rank)
            if before.rows:
                progress.say(f"{before.rows} of {self.rows} rows are there already")
            self._make(before, progress)
        after = self._scan() if progress.made else before
        assert after.rows == self.rows, "every shard was published"
        seconds = round(progress.seconds, 3) if progress.made else 0.0
        complete = self.layout.run.exists() or self._report(after, made=progress.made, seconds=seconds)
        waiting = missing_ranks(self.layout, self.job.world)
        if not complete and waiting:
            progress.say(f"rank {self.job.rank} is done; waiting for rank {', '.join(map(str, waiting[:20]))}")
        return RunReport(
            out=self.layout.out,
            rank=self.job.rank,
            world=self.job.world,
            rows=self.rows,
            made=progress.made,
            counts=after.status,
            failures=self._failures() if after.status["good"] < self.rows else [],
            seconds=seconds,
            complete=complete,
        )

    def _scan(self) -> Progress:
        return scan(self.layout, self.identity, rank=self.job.rank, rows=self.total)

    def _make(self, before: Progress, progress: RunProgress) -> None:
        """Make every missing row, shard by shard."""
        with self._tools(progress) as tools:
            for shard, indices in rank_shards(self.identity, rank=self.job.rank, rows=self.total):
                if missing := missing_indices(before, shard, indices):
                    self._make_shard(shard, tools.plan.take(missing), before, tools=tools)
        if cut := tools.encoder.counts["prompts_cut"]:
            length = tools.engine.tokenizer.model_max_length
            progress.say(f"{cut} prompts are longer than the {length} tokens that are read")

    @contextmanager
    def _tools(self, progress: RunProgress) -> Iterator[_Tools]:
        self.stop.check()
        engine = self.engine or load_engine(self.facts.folder or "")
        bank = open_bank(self.arguments.bank)
        encoder = Encoder(engine, references_of(bank, self.arguments).load)
        plan = PlanReader(self.layout, bank.header)
        try:
            with progress, ShardWriter(self.identity, rank=self.job.rank) as writer:
                yield _Tools(engine=engine, encoder=encoder, plan=plan, writer=writer, progress=progress)
        finally:
            plan.close()

    def _make_shard(self, shard: int, planned: list[PlanRow], before: Progress, *, tools: _Tools) -> None:
        """Make the missing rows of one shard and publish what was made, also when a signal came in."""
        progress, made = tools.progress, tools.progress.made
        short = self.layout.shard(self.job.rank, shard, before.next_part.get(shard, 0))
        path = short if before.begun.get(shard) else self.layout.shard(self.job.rank, shard)
        tools.writer.begin(path, planned, short=short, shard=shard)
        samples = generate(
            [one.row for one in planned],
            tools.engine,
            tools.encoder,
            batch=self.batch,
            should_stop=lambda: self.stop.requested,
        )
        for sample in samples:
            tools.writer.write(sample)
            progress.image(good=sample.status == GOOD)
        written = tools.writer.finish()
        if written is not None:
            progress.shard(written.name, progress.made - made)
        done = before.rows + progress.made
        if done < self.rows:
            left = f"{done} of {self.rows} rows are saved in {self.layout.out}, {self.rows - done} are left"
            self.stop.check(left)

    def _report(self, after: Progress, *, made: int, seconds: float) -> bool:
        """Write this rank's report, and run.json if it is the last one; tells whether run.json is there."""
        report = {
            "rank": self.job.rank,
            "counts": after.status,
            "made": made,
            "seconds": seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "shards": after.files,
        }
        words: dict[str, object] = {
            "engine": self.facts.folder or self.facts.spec.name,
            "out": self.layout.out,
            "shard_size": self.identity.shard_size,
            "world": self.job.world if self.job.world > 1 else None,
        }
        names = ("bank", "engine", "seed", "arguments", "world", "shard_size")
        common = {
            "fastgen_run": RUN_FORMAT,
            "command": self.arguments.command(**words),
            "versions": {"fastgen": __version__, "python": platform.python_version(), **_versions()},
            **{name: self.signature[name] for name in names},
            "classes": list(self.identity.classes),
            "rows": self.total,
        }
        return finish_rank(self.layout, report, rank=self.job.rank, world=self.job.world, common=common)

    def _failures(self) -> list[str]:
        """The first failed rows of this rank, with their reasons."""
        found: list[str] = []
        for _, _, path in self.layout.shard_files(self.job.rank):
            with ShardFile(path) as file:
                status = file.column("status")
                if not status.any():
                    continue
                ids, reasons = file.column("row_id"), file.column("reason")
                for place in status.nonzero()[0]:
                    found.append(f"row {ids[place]!r}: {STATUS_NAMES[status[place]]}: {reasons[place]}")
            if len(found) >= FAILURES_LISTED:
                break
        return found[:FAILURES_LISTED]


def _versions() -> dict[str, str]:
    """Installed versions of the packages that take part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
