"""One rank's share of a run: what it has, what it lacks, the making of it, and the report."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen import __version__
from fastgen.engine.load import load_engine
from fastgen.errors import FastgenError, Interrupted, OutputError
from fastgen.generate.encode import Encoder
from fastgen.generate.run import generate
from fastgen.job import Job, StopSignal
from fastgen.production.bank_check import BankCheck
from fastgen.production.disk import check_disk
from fastgen.production.heartbeat import Heartbeat
from fastgen.production.plan_file import PlanReader, PlanStream, count_lines
from fastgen.production.progress import RunProgress
from fastgen.production.setup import Arguments, EngineFacts, bank_of, planned_rows, references_of
from fastgen.shards.layout import (
    RUN_FORMAT,
    UNCHECKED,
    Layout,
    Progress,
    finish_rank,
    missing_indices,
    missing_ranks,
    rank_shards,
    reopen,
    scan,
)
from fastgen.shards.schema import GOOD, STATUS_NAMES, PlanRow, RunIdentity, rank_rows, shard_indices
from fastgen.shards.shard_file import ShardFile
from fastgen.shards.unchecked import discard, promote, refuse_foreign
from fastgen.shards.write import ShardWriter

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "h5py", "onnxruntime", "openvino", "tensorrt")
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
    writer: ShardWriter
    progress: RunProgress


@dataclass(kw_only=True)
class Work:
    """One rank of a run whose lock is held, and whose plan is written or being written.

    Args:
        arguments: as the user typed them.
        facts: of the engine.
        layout: the output folder.
        identity: what the shards of the run have in common.
        signature: content of plan.json.
        job: rank and world.
        check: of a long bank, which writes the plan meanwhile; None when the plan is there.
        batch: rows denoised together, or None.
        provider: where ONNX Runtime computes.
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
    check: BankCheck | None
    batch: int | None
    provider: str
    stop: StopSignal
    engine: "Engine | None"
    quiet: bool
    _device: str | None = field(default=None, init=False)
    """Where images were made; None while there are none of this process."""

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
            Interrupted: a signal came in; the rows made so far are saved.
            FastgenError: the check found something; no shard has got its final name.
        """
        with Heartbeat(self.layout, self.job) as heart:
            return self._finish(RunProgress(quiet=self.quiet, watch=heart.beat))

    def _finish(self, progress: RunProgress) -> RunReport:
        with ExitStack() as stack:
            tools = None
            if self.check is not None:
                tools = stack.enter_context(self._tools(progress))
                self._make_unchecked(self.check, tools)
            promote(self.layout, self.job.rank)
            before = self._scan()
            progress.expect(self.rows, there=before.rows, failed=before.rows - before.status["good"])
            if before.rows < self.rows:
                check_disk(self.layout, self.identity, before, rank=self.job.rank, rows=self.total)
                reopen(self.layout, self.job.rank)
                if progress.done > progress.made:
                    progress.say(f"{before.rows} of {self.rows} rows are there already")
                self._make(before, tools or stack.enter_context(self._tools(progress)))
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

    def _make_unchecked(self, check: BankCheck, tools: _Tools) -> None:
        """Make shards that wait for the check, until it has passed or the rank's share of the plan ends."""
        rank = self.job.rank
        refuse_foreign(self.layout, self.identity, rank)
        before = scan(self.layout, self.identity, rank=rank, rows=sys.maxsize, unchecked=True)
        limit = self.arguments.limit
        bank = bank_of(self.arguments)
        # Every row becomes at least one image, but for those of shots that this run does not take.
        least = (count_lines(self.arguments.bank, limit=limit) - 1) // (bank.header.defaults.get("shots") or 1)
        check_disk(self.layout, self.identity, before, rank=rank, rows=least if limit is None else min(least, limit))
        tools.progress.expect(None, there=before.rows, failed=before.rows - before.status["good"])
        plan = PlanStream(planned_rows(self.arguments, bank, self.facts), bank.header)
        try:
            for shard in count():
                if check.passed():
                    return
                missing = missing_indices(before, shard, self._indices(shard))
                if planned := plan.take(missing):
                    self._make_shard(shard, planned, before, tools=tools)
                if len(planned) < len(missing):
                    break
            check.wait(self.stop)
        except (Interrupted, OutputError):
            raise
        except FastgenError:
            # What stops one row here is one of the problems that the check will list.
            self._let_fail(check)
            raise

    def _let_fail(self, check: BankCheck) -> None:
        """Wait for the check of a bank that cannot pass, which raises, and delete what was made of it."""
        try:
            check.wait(self.stop)
        except (Interrupted, OutputError):
            raise
        except FastgenError:
            discard(self.layout, self.job.rank)
            raise

    def _indices(self, shard: int) -> range:
        """Plan indices of a shard of this rank in a plan without end."""
        world, size = self.job.world, self.identity.shard_size
        return shard_indices(self.job.rank, shard, world=world, shard_size=size, rows=sys.maxsize)

    def _make(self, before: Progress, tools: _Tools) -> None:
        """Make every missing row, shard by shard."""
        plan = PlanReader(self.layout, bank_of(self.arguments).header)
        try:
            for shard, indices in rank_shards(self.identity, rank=self.job.rank, rows=self.total):
                if missing := missing_indices(before, shard, indices):
                    self._make_shard(shard, plan.take(missing), before, tools=tools)
        finally:
            plan.close()
        if cut := tools.encoder.counts["prompts_cut"]:
            length = tools.engine.tokenizer.model_max_length
            tools.progress.say(f"{cut} prompts are longer than the {length} tokens that are read")

    @contextmanager
    def _tools(self, progress: RunProgress) -> Iterator[_Tools]:
        self.stop.check()
        engine = self.engine or load_engine(self.facts.folder or "", provider=self.provider)
        self._device = str(engine.device)
        encoder = Encoder(engine, references_of(bank_of(self.arguments), self.arguments).load)
        with progress, ShardWriter(self.identity, rank=self.job.rank) as writer:
            yield _Tools(engine=engine, encoder=encoder, writer=writer, progress=progress)

    def _make_shard(self, shard: int, planned: list[PlanRow], before: Progress, *, tools: _Tools) -> None:
        """Make the missing rows of one shard and publish what was made, also when a signal came in."""
        progress, made = tools.progress, tools.progress.made
        check = None if progress.rows is not None else self.check
        short = self.layout.shard(self.job.rank, shard, before.next_part.get(shard, 0))
        path = short if before.begun.get(shard) else self.layout.shard(self.job.rank, shard)
        if check is not None:
            path, short = (name.with_name(name.name + UNCHECKED) for name in (path, short))
        tools.writer.begin(path, planned, short=short, shard=shard)
        samples = generate(
            [one.row for one in planned],
            tools.engine,
            tools.encoder,
            batch=self.batch,
            should_stop=lambda: self.stop.requested or (check is not None and check.has_failed),
        )
        for sample in samples:
            tools.writer.write(sample)
            progress.image(good=sample.status == GOOD)
        written = tools.writer.finish()
        if written is not None:
            progress.shard(written.name, progress.made - made)
        if progress.rows is None:
            self.stop.check(f"{progress.done} rows are saved in {self.layout.out}, the bank is not checked yet")
        elif progress.done < progress.rows:
            left = f"{progress.done} of {self.rows} rows are saved in {self.layout.out}"
            self.stop.check(f"{left}, {self.rows - progress.done} are left")

    def _report(self, after: Progress, *, made: int, seconds: float) -> bool:
        """Write this rank's report, and run.json if it is the last one; tells whether run.json is there."""
        report = {
            "rank": self.job.rank,
            "counts": after.status,
            "made": made,
            "device": self._device,
            "seconds": seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "shards": after.files,
        }
        words: dict[str, object] = {
            "engine": self.facts.folder or self.facts.spec.name,
            "out": self.layout.out,
            "shard_size": self.identity.shard_size,
            "world": self.job.world if self.job.world > 1 else None,
            "provider": self.provider if self.provider != "auto" else None,
        }
        names = ("bank", "engine", "seed", "arguments", "world", "shard_size")
        common = {
            "fastgen_run": RUN_FORMAT,
            "command": self.arguments.command(**words),
            "versions": {"fastgen": __version__, "python": platform.python_version(), **installed_versions()},
            "plan_id": self.identity.plan_id,
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


def installed_versions() -> dict[str, str]:
    """Installed versions of the packages that take part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
