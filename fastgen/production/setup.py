"""Everything before the first image: the arguments, the bank, the references, the engine and the plan."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.bank.defaults import check_profile, with_profile
from fastgen.bank.read import Bank, check_bank, open_bank
from fastgen.engine.spec import EngineSpec, read_spec
from fastgen.errors import EngineError, FastgenError, FieldProblem
from fastgen.generate.batch import complete_row, engine_defaults, engine_problems
from fastgen.generate.schedulers import scheduler_name
from fastgen.plan.references import Reference, References, find_references
from fastgen.plan.resolve import check_values, parse_policy, plan_rows, planned_count, reference_check
from fastgen.production.engines import find_engine
from fastgen.records import Header, Row
from fastgen.shards.layout import PLAN_FORMAT

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
    profile: str | None = None
    guidance_interval: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no bank can make good.

        Raises:
            FastgenError: an option is not allowed.
        """
        for name, value, least in (("--shots", self.shots, 1), ("--limit", self.limit, 1)):
            if value is not None and value < least:
                raise FastgenError(f"got {name} {value}; allowed: {least} or more")
        parse_policy(self.policy)
        check_profile(self.profile)
        scheduler_name(self.scheduler, {})
        check_values(self.overrides, "option")

    @property
    def overrides(self) -> dict[str, Any]:
        """Values that hold for every row, whatever it says."""
        values = {"steps": self.steps, "guidance_scale": self.guidance, "scheduler": self.scheduler}
        return {**values, "guidance_interval": parse_interval(self.guidance_interval)}

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the plan, for plan.json."""
        names = ("refs", "shots", "policy", "steps", "guidance", "scheduler", "limit", "clip")
        values = {name: getattr(self, name) for name in names}
        values["policy"] = None if self.policy is None else str(self.policy)
        newer = {name: getattr(self, name) for name in ("profile", "guidance_interval")}
        return {**values, **{name: value for name, value in newer.items() if value is not None}}

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


def parse_interval(text: str | None) -> list[float] | None:
    """Turn `LO-HI` into the value of the row field `guidance_interval`; whether it is allowed is checked there.

    Raises:
        FastgenError: it is not of this form.
    """
    if text is None:
        return None
    try:
        lo, hi = (float(end) for end in text.split("-"))
    except ValueError:
        allowed = "LO-HI with 0 <= LO < HI <= 1, for example 0.2-0.8"
        raise FastgenError(f"guidance_interval: got {text!r}; allowed: {allowed}") from None
    return [lo, hi]


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


def bank_of(arguments: Arguments) -> Bank:
    """Open the bank; its header is as the profile wants it.

    Raises:
        BankError: the file cannot be read, or its line 1 is no good header.
    """
    return _profiled(open_bank(arguments.bank), arguments)


def _profiled(bank: Bank, arguments: Arguments) -> Bank:
    if arguments.profile is None:
        return bank
    return Bank(bank.path, with_profile(bank.header, arguments.profile), sha256=bank.sha256, count=bank.count)


def references_of(bank: Bank, arguments: Arguments) -> References:
    """The references that the arguments and the bank's header name.

    Raises:
        ReferenceImageError: their folder does not exist, or fits no class.
    """
    folder = bank.path.parent
    return find_references(arguments.refs, bank.header, bank_dir=folder, shots=arguments.shots, seed=arguments.seed)


def check_everything(
    arguments: Arguments, facts: EngineFacts, *, check: Callable[[], None] = lambda: None
) -> tuple[Bank, int]:
    """Look at every line of the bank and list all that stands in the way.

    Args:
        arguments: of the run.
        facts: of the engine.
        check: called for every good row; raises to stop (a signal came in).

    Returns:
        The bank, and how many image rows its plan will have.

    Raises:
        BankError: with up to 20 problems of the bank.
        ReferenceImageError: the folder of references does not exist.
    """
    opened = bank_of(arguments)
    header, references = opened.header, references_of(opened, arguments)
    given = {name: value for name, value in arguments.overrides.items() if value is not None}
    defaults = {**facts.defaults, **header.row_defaults(), **given}
    reference_problems = reference_check(references, header)
    count = 0

    def row_check(row: Row) -> list[FieldProblem]:
        nonlocal count
        check()
        problems = reference_problems(row)
        count += 0 if problems else planned_count(row, header, references)
        return [*problems, *engine_problems(row.with_defaults(defaults), facts.spec)]

    bank = _profiled(check_bank(arguments.bank, refs=arguments.refs, row_check=row_check), arguments)
    return bank, count if arguments.limit is None else min(count, arguments.limit)


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
            rules = header.defaults.get("ags") or {}
            scorer = ClipScorer(
                clip,
                header.classes,
                template=header.score_template,
                kind=rules.get("score") or "softmax",
                fit=rules.get("score_fit") or "center_crop",
                decimals=rules.get("score_round"),
            )
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
