"""Everything before the first image: the arguments, the bank, the references, the engine and the plan."""

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.bank.read import Bank, check_bank, open_bank
from fastgen.engine.spec import EngineSpec, read_spec
from fastgen.errors import EngineError, FastgenError, FieldProblem
from fastgen.fields import parse_object
from fastgen.files import atomic_file
from fastgen.generate.batch import complete_row, engine_defaults, engine_problems
from fastgen.generate.schedulers import scheduler_name
from fastgen.plan.references import Reference, References, find_references
from fastgen.plan.resolve import check_values, parse_policy, plan_rows, reference_check
from fastgen.production.engines import find_engine
from fastgen.records import Header, Row
from fastgen.shards.layout import PLAN_FORMAT, Layout, publish_first, write_signature
from fastgen.shards.schema import PlanRow

if TYPE_CHECKING:
    from fastgen.engine.load import Engine

PAPER_CLIP = "ViT-B-16-quickgelu=openai"
"""What scores references when the engine's model brings no scoring CLIP of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the user asked for, as typed: options of `fastgen run`; None means not given."""

    bank: Path
    refs: str | None
    shots: int | None
    policy: str | float | None
    seed: int
    steps: int | None
    guidance: float | None
    scheduler: str | None
    limit: int | None
    clip: str | None

    def __post_init__(self) -> None:
        """Refuse numbers that no bank can make good.

        Raises:
            FastgenError: an option is not allowed.
        """
        for name, value, least in (("--shots", self.shots, 1), ("--limit", self.limit, 1)):
            if value is not None and value < least:
                raise FastgenError(f"got {name} {value}; allowed: {least} or more")
        parse_policy(self.policy)
        scheduler_name(self.scheduler, {})
        check_values(self.overrides, "option")

    @property
    def overrides(self) -> dict[str, Any]:
        """Values that hold for every row, whatever it says."""
        return {"steps": self.steps, "guidance_scale": self.guidance, "scheduler": self.scheduler}

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the plan, for plan.json."""
        names = ("refs", "shots", "policy", "steps", "guidance", "scheduler", "limit", "clip")
        values = {name: getattr(self, name) for name in names}
        return {**values, "policy": None if self.policy is None else str(self.policy)}

    def command(self, **more: object) -> str:
        """The shell command that says the same."""
        words = ["fastgen", "run", "--bank", str(self.bank)]
        for name, value in {**self.to_json(), "seed": self.seed, **more}.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a plan needs to know of an engine, without loading it.

    Attributes:
        folder: None for an engine object that was handed in.
        fingerprint: of the engine.
        spec: content of engine.json.
        scheduler_config: of the model's own scheduler.
    """

    folder: Path | None
    fingerprint: str
    spec: EngineSpec
    scheduler_config: dict[str, Any]

    @property
    def defaults(self) -> dict[str, Any]:
        """Row fields for rows that lack them."""
        return engine_defaults(self.spec, self.scheduler_config)

    def to_json(self) -> dict[str, Any]:
        """Entry of plan.json."""
        return {
            "name": self.spec.name,
            "fingerprint": self.fingerprint,
            "height": self.spec.height,
            "width": self.spec.width,
        }


def engine_facts(engine: "str | Path | Engine | None") -> EngineFacts:
    """Find the engine a command means and read its engine.json.

    Args:
        engine: a folder, a name in engines/, a loaded engine, or None for the only one that was built.

    Raises:
        EngineError: there is none, or there are several; says which command to type.
    """
    if engine is not None and not isinstance(engine, str | Path):
        return EngineFacts(
            folder=None,
            fingerprint=engine.fingerprint,
            spec=engine.spec,
            scheduler_config=engine.scheduler_config,
        )
    folder = find_engine(engine)
    spec = read_spec(folder)
    try:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"engine {folder} is damaged ({error}); build it again: {spec.build_command}") from error
    return EngineFacts(folder=folder, fingerprint=spec.fingerprint, spec=spec, scheduler_config=config)


def references_of(bank: Bank, arguments: Arguments) -> References:
    """The references that the arguments and the bank's header name.

    Raises:
        ReferenceImageError: their folder does not exist, or fits no class.
    """
    folder = bank.path.parent
    return find_references(arguments.refs, bank.header, bank_dir=folder, shots=arguments.shots, seed=arguments.seed)


def check_everything(arguments: Arguments, facts: EngineFacts) -> Bank:
    """Look at every line of the bank and list all that stands in the way, before anything is generated.

    Raises:
        BankError: with up to 20 problems of the bank.
        ReferenceImageError: the folder of references does not exist.
    """
    header = open_bank(arguments.bank).header
    references = references_of(Bank(arguments.bank, header), arguments)
    given = {name: value for name, value in arguments.overrides.items() if value is not None}
    defaults = {**facts.defaults, **header.row_defaults(), **given}

    reference_problems = reference_check(references, header)

    def row_check(row: Row) -> list[FieldProblem]:
        return [*reference_problems(row), *engine_problems(row.with_defaults(defaults), facts.spec)]

    return check_bank(arguments.bank, refs=arguments.refs, row_check=row_check)


def planned_rows(arguments: Arguments, bank: Bank, facts: EngineFacts) -> Iterator[Row]:
    """Yield the resolved rows of a checked bank, complete, streamed.

    Raises:
        EngineError: while iterating: the engine cannot make a row.
        FastgenError: while iterating: a reference or the scoring CLIP cannot be read.
    """
    rows = plan_rows(
        bank,
        references_of(bank, arguments),
        seed=arguments.seed,
        scorer=_lazy_scorer(arguments, bank.header, facts.spec),
        policy=arguments.policy,
        shots=arguments.shots,
        overrides=arguments.overrides,
        engine_defaults=facts.defaults,
        limit=arguments.limit,
    )
    for row in rows:
        yield complete_row(row, facts.spec, facts.scheduler_config)


def _lazy_scorer(arguments: Arguments, header: Header, spec: EngineSpec) -> Callable[[Reference], float]:
    """Scores references; the CLIP is loaded when the first score is asked for."""
    scorer: Callable[[Reference], float] | None = None

    def score(reference: Reference) -> float:
        nonlocal scorer
        if scorer is None:
            from fastgen.clip import ScoringClip
            from fastgen.plan.score import ClipScorer

            clip = ScoringClip.load(arguments.clip or clip_of(spec))
            scorer = ClipScorer(clip, header.classes, template=header.score_template)
        return scorer(reference)

    return score


def clip_of(spec: EngineSpec) -> str:
    """The scoring CLIP that goes with an engine: its embedded model's own, else the paper's (downloaded)."""
    from fastgen.engine.model_files import EMBEDDED

    own = EMBEDDED / str(spec.model["id"]) / "clip"
    return str(own) if own.is_dir() else PAPER_CLIP


def signature_of(
    arguments: Arguments, bank: Bank, facts: EngineFacts, *, world: int, shard_size: int
) -> dict[str, Any]:
    """Everything that decides the images and how they lie in shards: the content of plan.json."""
    return {
        "fastgen_plan": PLAN_FORMAT,
        "header": bank.header.to_json(),
        "bank": {"sha256": bank.sha256},
        "engine": facts.to_json(),
        "seed": arguments.seed,
        "arguments": arguments.to_json(),
        "world": world,
        "shard_size": shard_size,
    }


def write_plan(layout: Layout, signature: dict[str, Any], rows: Iterator[Row], *, check: Callable[[], None]) -> None:
    """Write plan.jsonl and plan.json; when several ranks do so at once, all take the first one's.

    Args:
        layout: the output folder.
        signature: content of plan.json.
        rows: resolved and complete, streamed.
        check: called for every row; raises to stop (a signal came in).

    Raises:
        OutputError: the folder cannot be written, or was started with something else meanwhile.
    """
    layout.out.mkdir(parents=True, exist_ok=True)
    tmp = layout.out / f".plan.jsonl.{os.getpid()}.part"
    try:
        with atomic_file(tmp) as handle:
            for row in rows:
                check()
                handle.write(json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        write_signature(layout, signature)
        publish_first(tmp, layout.plan)
    finally:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)


class PlanReader:
    """Reads plan.jsonl once from front to back, parsing only the lines that are asked for."""

    def __init__(self, layout: Layout, header: Header) -> None:
        """Open the plan.

        Args:
            layout: the output folder.
            header: of the bank.
        """
        self._path = layout.plan
        self._header = header
        self._handle = open(layout.plan, encoding="utf-8", newline="\n")  # noqa: SIM115 (closed in close)
        self._next = 0

    def take(self, indices: list[int]) -> list[PlanRow]:
        """Return the rows with these numbers: ascending, and above those of the call before.

        Raises:
            FastgenError: the plan was changed by hand.
        """
        found = []
        for index in indices:
            line = next(islice(self._handle, index - self._next, None), None)
            self._next = index + 1
            if line is None:
                raise FastgenError(f"{self._path}: ends before row {index}; delete the output folder and run again")
            line = line.removesuffix("\n")
            try:
                found.append(PlanRow(index=index, line=line, row=Row.from_json(parse_object(line), self._header)))
            except FastgenError as error:
                raise FastgenError(f"{self._path}:{index + 1}: {error}; the plan was changed by hand") from error
        return found

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def count_lines(path: Path) -> int:
    """Number of lines of a file, reading it in pieces of 1 MiB."""
    with open(path, "rb") as handle:
        return sum(piece.count(b"\n") for piece in iter(lambda: handle.read(1 << 20), b""))
