"""Which rows may share a batch, and what a row must say before it can be generated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fastgen.errors import EngineError, FieldProblem
from fastgen.fields import show
from fastgen.generate.schedulers import SCHEDULERS, executed_steps, is_scheduler, scheduler_name
from fastgen.records import Adapter, LambdaPolicy, Row

if TYPE_CHECKING:
    from fastgen.engine.spec import EngineSpec

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 7.5


class Group(NamedTuple):
    """Rows that agree in all of this go through the same steps together; all else is data of the row.

    Attributes:
        executed: steps that are run; fewer than `steps` for img2img.
        interval: shares of the schedule between which there is guidance; None: nowhere.
    """

    scheduler: str
    steps: int
    height: int
    width: int
    mode: str
    executed: int
    interval: tuple[float, float] | None

    @property
    def guided(self) -> bool:
        """Whether there is guidance at any step."""
        return self.interval is not None


def group_of(row: Row) -> Group:
    """Group of a complete row (see `complete_row`)."""
    assert row.steps and row.scheduler and row.height and row.width and row.guidance_scale is not None
    mode = row.mode or "t2i"
    executed = executed_steps(row.steps, row.strength or 1.0) if mode == "img2img" else row.steps
    interval = (row.guidance_interval or (0.0, 1.0)) if row.guidance_scale > 1 else None
    return Group(row.scheduler, row.steps, row.height, row.width, mode, executed, interval)


def batches(rows: Sequence[Row], size: int) -> Iterator[tuple[Group, list[Row]]]:
    """Yield full batches of every group, and its rest as a shorter one; groups in order of their first row.

    Args:
        rows: complete rows, in any order; the order within a group is kept.
        size: rows of a full batch, >= 1.
    """
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    for group, members in groups.items():
        for first in range(0, len(members), size):
            yield group, members[first : first + size]


def complete_row(row: Row, spec: "EngineSpec", scheduler_config: Mapping[str, Any]) -> Row:
    """Fill in what the row leaves to the engine, and check that the engine can make it.

    Args:
        row: a resolved image row.
        spec: of the engine.
        scheduler_config: of the engine; names the scheduler of rows that name none.

    Returns:
        The row with steps, scheduler, guidance scale, width, height, mode and negative prompt: alone enough to
        regenerate the image.

    Raises:
        EngineError: the engine cannot make this row; names row, field, what it got and what is allowed.
    """
    defaults = engine_defaults(spec, scheduler_config)
    done = replace(row, mode=row.mode or "t2i", negative_prompt=row.negative_prompt or "").with_defaults(defaults)
    problems = [*engine_problems(done, spec), *_unresolved(done)]
    if problems:
        raise EngineError("\n".join(f"row {row.id!r}: {problem}" for problem in problems))
    return replace(done, scheduler=scheduler_name(done.scheduler, scheduler_config))


def engine_defaults(spec: "EngineSpec", scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """Values, by row field, for rows that lack them: the model's own settings."""
    own = spec.defaults
    return {
        "steps": own.get("steps", DEFAULT_STEPS),
        "guidance_scale": own.get("guidance_scale", DEFAULT_GUIDANCE),
        "scheduler": own.get("scheduler") or scheduler_name(None, scheduler_config),
        "width": spec.width,
        "height": spec.height,
    }


def engine_problems(row: Row, spec: "EngineSpec") -> list[FieldProblem]:
    """What this engine cannot do for a row, resolved or not; fields that are None are not looked at."""
    problems = []

    def add(field: str, got: object, allowed: str) -> None:
        problems.append(FieldProblem(field, show(got), allowed))

    for name, side in (("width", spec.width), ("height", spec.height)):
        if getattr(row, name) not in (None, side):
            add(
                name,
                getattr(row, name),
                f"{side}, the size of this engine; or leave it out, or fastgen build --size",
            )
    if row.scheduler is not None and not is_scheduler(row.scheduler):
        add("scheduler", row.scheduler, ", ".join(SCHEDULERS))
    if isinstance(row.lambda_, float) and not spec.has_image_prompt:
        add("lambda", row.lambda_, "null: this engine has no IP-Adapter; or build one with --ip-adapter")
    if row.mode == "img2img" and row.steps and row.strength and executed_steps(row.steps, row.strength) < 1:
        add("strength", row.strength, f"at least {1 / row.steps:.3g}, so that one of {row.steps} steps is run")
    problems += [problem for adapter in row.adapters for problem in _adapter_problems(adapter, spec)]
    return problems


def _adapter_problems(adapter: Adapter, spec: "EngineSpec") -> Iterator[FieldProblem]:
    """What an engine lacks of an adapter that a row wants: a LoRA at its scale, or a word, which has no scale."""
    if adapter.target == "ti":
        there, wanted = {word: 1.0 for word in spec.words}, f"--embedding '{adapter.name}=PATH' and scale 1"
    else:
        there, wanted = spec.adapters, f"--lora {adapter.name}=PATH@{adapter.scale:g}"
    scale = there.get(adapter.name)
    if scale is None or abs(scale - adapter.scale) > 1e-6:
        fused = ", ".join(f"{name} at {value:g}" for name, value in there.items()) or "none"
        got = show({adapter.name: adapter.scale})
        yield FieldProblem("adapters", got, f"what this engine has ({fused}); or fastgen build {wanted}")
    elif adapter.target != "ti" and adapter.target not in spec.targets(adapter.name):
        has = " and ".join(spec.targets(adapter.name))
        allowed = f"{has}, all that the LoRA {adapter.name} of this engine changes; or build it with one that has both"
        yield FieldProblem("adapters", show({adapter.name: adapter.target}), allowed)


def _unresolved(row: Row) -> Iterator[FieldProblem]:
    """What a row must say before it can be generated, whatever the engine."""
    if row.id is None or row.seed is None:
        yield FieldProblem("seed", "nothing", "an id and a seed; fastgen plan gives both")
    if isinstance(row.lambda_, LambdaPolicy):
        yield FieldProblem("lambda", row.lambda_.policy, "a number or null; fastgen plan draws it")
    elif row.lambda_ is not None and (row.ref is None or "ip" not in row.ref.role):
        yield FieldProblem("lambda", show(row.lambda_), 'null, or a ref with the role "ip" beside it')
    if row.mode == "img2img" and (row.ref is None or "init" not in row.ref.role):
        yield FieldProblem("ref.role", "no init", 'a reference with the role "init", which mode img2img needs')
    if row.mode == "img2img" and row.strength is None:
        yield FieldProblem("strength", "nothing", "a number above 0 up to 1, which mode img2img needs")
