"""From a bank to image rows: which sentence meets which reference, with which lambda and seed.

A prompt row becomes one image row for every reference of its class, so each reference meets each sentence
exactly once; an image row stays one. What a row becomes depends on the row, its reference, the run's seed and
the options, never on the rows around it: every rank makes the same plan and takes its part by index.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from fastgen.bank.read import Bank
from fastgen.errors import FastgenError, FieldProblem, ReferenceImageError
from fastgen.fields import Problems, show, unknown_fields
from fastgen.plan.ags import AgsRule, ags_parameters, sample_uniform
from fastgen.plan.references import Reference, References
from fastgen.records import Header, LambdaPolicy, Row
from fastgen.row_parts import AGS_CHOICES, LAMBDA_MAX, POLICIES, SHAREABLE
from fastgen.seeds import row_seed, stream

Lambda = float | LambdaPolicy | None
Scorer = Callable[[Reference], float]

NO_PROVENANCE: dict[str, Any] = {
    "lambda_mu": None, "lambda_sigma": None, "lambda_bin": None, "lambda_sampler": None
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """Everything of a run that says how a row is resolved."""

    header: Header
    references: References
    defaults: Mapping[str, Any]
    overrides: Mapping[str, Any]
    seed: int
    policy: Lambda
    bank_policy: Lambda
    shots: int | None
    ags: AgsRule
    scorer: Scorer | None
    stream: np.random.Generator | None


def plan_rows(
    bank: Bank,
    references: References,
    *,
    seed: int = 0,
    scorer: Scorer | None = None,
    policy: str | float | LambdaPolicy | None = None,
    shots: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    engine_defaults: Mapping[str, Any] | None = None,
    rule: AgsRule | None = None,
    limit: int | None = None,
) -> Iterator[Row]:
    """Resolves a bank, row by row and in order; memory does not grow with the bank.

    A value comes from the first that has one: `overrides`, the row, the header's defaults, `engine_defaults`.
    For lambda: `policy`, the row, the header's `lambda` or `policy`, else AGS if there are references. A row
    that says `"lambda": null` has no image branch, whatever the policy. An image row is kept, but for
    `policy` and `overrides`, and gets what it lacks; the header's prefix goes before other rows' prompts, and its
    `ref_fit` to their references. With `seed_mode` "stream" seeds and lambdas are drawn from one generator, row after
    row: what a row becomes then depends on the rows before it, but its image still on the planned row alone.

    Args:
        bank: an open bank.
        references: of the bank's classes.
        seed: of the run; rows without a seed get theirs from it and their id.
        scorer: gives the score of a reference; asked only for rows that AGS resolves and that have no score.
        policy: "ags", "uniform" or a number, for all rows with an image branch; None: as the bank says.
        shots: n of AGS, for all rows; None: the policy's own n, else the header's `shots`, else 1.
        overrides: values by row field, such as {"steps": 20}; None means not given.
        engine_defaults: values by row field for what nobody else says, such as {"scheduler": "ddim"}.
        rule: constants of AGS; the paper's, with the header's `ags`, when not given. Options of a row's own policy
            come before either.
        limit: number of rows after which the plan ends.

    Returns:
        The image rows, with seed, label, lambda and, for a drawn lambda, how it was drawn.

    Raises:
        FastgenError: an option is not allowed; while iterating: lambda needs a scorer that is not there.
        BankError: while iterating: a line of the bank is bad.
        ReferenceImageError: while iterating: a row has no reference, or it cannot be read for its score.
    """
    header = bank.header
    _check_counts(limit=limit, shots=shots)
    bank_defaults = header.row_defaults()
    bank_lambda = bank_defaults.pop("lambda_", None)
    bank_policy = parse_policy(header.defaults.get("policy"), header.defaults.get("shots"))
    rules = _Rules(
        header=header,
        references=references,
        defaults={**check_values(engine_defaults, "engine default"), **bank_defaults},
        overrides=check_values(overrides, "option"),
        seed=seed,
        policy=parse_policy(policy, header.defaults.get("shots")),
        bank_policy=bank_policy if bank_lambda is None else bank_lambda,
        shots=shots,
        ags=rule or AgsRule().with_options(header.defaults.get("ags") or {}),
        scorer=scorer,
        stream=np.random.default_rng(seed) if header.defaults.get("seed_mode") == "stream" else None,
    )
    return islice(_plan(bank, rules), limit)


def count_rows(bank: Bank, references: References, *, limit: int | None = None) -> int:
    """How many rows `plan_rows` gives, without scores; reads the bank once.

    Raises:
        BankError: a line of the bank is bad.
        ReferenceImageError: a row has no reference.
    """
    total = 0
    for _, row in bank.rows():
        total += planned_count(row, bank.header, references)
        if limit is not None and total >= limit:
            return limit
    return total


def planned_count(row: Row, header: Header, references: References) -> int:
    """How many image rows a row of the bank becomes.

    Raises:
        ReferenceImageError: it has no reference.
    """
    return len(_met(row, header, references)) if _is_paired(row, header, references) else 1


def reference_check(references: References, header: Header) -> Callable[[Row], list[FieldProblem]]:
    """Returns the `row_check` of `check_bank` for what only the references know.

    It finds classes without references and ids of references that do not exist; files that `ref.path` names
    are looked for by `check_bank` itself.
    """

    def check(row: Row) -> list[FieldProblem]:
        wanted = [("ref.id", row.ref.id)] if row.ref is not None and row.ref.path is None else []
        wanted += [(f"init.refs[{i}]", id_) for i, id_ in enumerate(row.init.refs if row.init else ())]
        found = []
        for field, id_ in wanted:
            try:
                references.find(id_)
            except ReferenceImageError as error:
                found.append(FieldProblem(field, show(id_), f"a reference that exists; {error}"))
        if _is_paired(row, header, references):
            try:
                references.of_class(row.class_)
            except ReferenceImageError as error:
                found.append(FieldProblem("class", show(row.class_), f"a class with references; {error}"))
        return found

    return check


def parse_policy(value: str | float | LambdaPolicy | None, shots: int | None = None) -> Lambda:
    """Turns what a user writes for lambda into a rule.

    Args:
        value: "ags", "uniform", a number (also as text), a rule, or None.
        shots: n of "ags"; 1 if None.

    Returns:
        A number, a `LambdaPolicy`, or None.

    Raises:
        FastgenError: if it is anything else, or the number is out of range.
    """
    if value is None or isinstance(value, LambdaPolicy):
        return value
    if value == "ags":
        return LambdaPolicy(policy="ags", n=shots or 1)
    if value == "uniform":
        return LambdaPolicy(policy="uniform")
    try:
        weight = float(value)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= LAMBDA_MAX:  # False for NaN
        allowed = f"{', '.join(POLICIES)} or a number from 0 to {LAMBDA_MAX:g}"
        raise FastgenError(f"policy: got {value!r}; allowed: {allowed}")
    return weight


def check_values(values: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Checks values by row field, as a header's defaults are checked, and leaves out those that are None.

    Args:
        values: field -> JSON value, or None for no values.
        what: how messages call them.

    Raises:
        FastgenError: if a field cannot be set for all rows, or a value is not allowed; lists all.
    """
    allowed = {name: check for name, check in SHAREABLE.items() if name not in ("lambda", "mode")}
    given = {name: value for name, value in (values or {}).items() if value is not None}
    problems = Problems()
    unknown_fields(problems, given, allowed)
    found = {name: allowed[name](problems, name, value) for name, value in given.items() if name in allowed}
    if problems.found:
        raise FastgenError("\n".join(f"{what}: {problem}" for problem in problems.found))
    return found


def _check_counts(*, limit: int | None, shots: int | None) -> None:
    if limit is not None and limit < 0:
        raise FastgenError(f"limit: got {limit}; allowed: 0 or more rows")
    if shots is not None and shots < 1:
        raise FastgenError(f"shots: got {shots}; allowed: 1 or more references per class")


def _plan(bank: Bank, rules: _Rules) -> Iterator[Row]:
    for line, row in bank.rows():
        try:
            yield from _resolve_line(line, row, rules)
        except ReferenceImageError as error:
            raise ReferenceImageError(f"{bank.path}:{line}: {error}") from error


def _resolve_line(line: int, row: Row, rules: _Rules) -> Iterator[Row]:
    """The image rows of one row of the bank."""
    name = row.id or f"line-{line:08d}"
    if _is_paired(row, rules.header, rules.references, rules.policy):
        for reference in _met(row, rules.header, rules.references):
            ref = replace(reference.as_ref(), size=reference.size())
            paired = replace(row, id=f"{name}~{reference.key}", ref=ref, shot=None)
            yield _resolve(paired, rules, is_resolved=False, reference=reference)
    else:
        yield _resolve(replace(row, id=name), rules, is_resolved=row.is_image_row)


def _resolve(row: Row, rules: _Rules, *, is_resolved: bool, reference: Reference | None = None) -> Row:
    """One image row from a row that has its id and, if it wants one, its reference."""
    weight = _wanted_lambda(row, rules)
    if weight is not None and row.ref is None:
        raise ReferenceImageError(f"row {row.id!r}: lambda without a reference; give it a ref, or lambda null")
    prefix = "" if is_resolved else rules.header.defaults.get("prefix") or ""
    row = replace(row, **rules.overrides).with_defaults(rules.defaults)
    row = replace(
        row,
        prompt=prefix + row.prompt,  # put together, never formatted: a sentence may hold braces
        label=row.label if row.label is not None else rules.header.label_of(row.class_),
        seed=row.seed if row.seed is not None else _new_seed(row, rules),
    )
    if row.ref is not None and row.ref.fit is None and not is_resolved:
        row = replace(row, ref=replace(row.ref, fit=rules.header.defaults.get("ref_fit")))
    if row.ref is not None and row.mode == "img2img" and "init" not in row.ref.role:
        row = replace(row, ref=replace(row.ref, role=("init",) if weight is None else (*row.ref.role, "init")))
    return _with_lambda(row, weight, rules, reference)


def _new_seed(row: Row, rules: _Rules) -> int:
    if rules.stream is None:
        return row_seed(rules.seed, row.id or "")
    return int(rules.stream.integers(2**64, dtype=np.uint64))


def _wanted_lambda(row: Row, rules: _Rules) -> Lambda:
    """The number or rule for the row's lambda; None for no image branch."""
    if row.lambda_null:
        return None
    if row.ref is None or "ip" not in row.ref.role:
        return row.lambda_
    for given in (rules.policy, row.lambda_, rules.bank_policy):
        if given is not None:
            return given
    is_text_to_image = _mode(row, rules.header) == "t2i"
    return parse_policy("ags", rules.header.defaults.get("shots")) if is_text_to_image else None


def _with_lambda(row: Row, weight: Lambda, rules: _Rules, reference: Reference | None) -> Row:
    """The row with its lambda as a number, and where the number comes from."""
    assert row.seed is not None
    if weight is None:
        return replace(row, lambda_=None, lambda_null=True, **NO_PROVENANCE)
    if not isinstance(weight, LambdaPolicy):
        return row if weight == row.lambda_ else replace(row, lambda_=weight, **NO_PROVENANCE)
    rng = rules.stream or stream(row.seed, "lambda")
    if weight.policy == "uniform":
        drawn = sample_uniform(rng, weight.lo, weight.hi)
        return replace(row, lambda_=drawn, **{**NO_PROVENANCE, "lambda_sampler": "uniform"})
    score = row.score if row.score is not None else _score(row, rules, reference)
    rule = rules.ags.with_options({name: getattr(weight, name) for name in AGS_CHOICES})
    found = ags_parameters(score, rules.shots or weight.n or rules.header.defaults.get("shots") or 1, rule)
    if rule.per == "reference":
        assert row.ref is not None
        rng = stream(row_seed(rules.seed, f"reference/{row.ref.id}"), "lambda")
    return replace(
        row,
        score=score,
        lambda_=found.sample(rng),
        lambda_mu=found.mu,
        lambda_sigma=found.sigma,
        lambda_bin=found.bin,
        lambda_sampler=found.sampler,
    )


def _score(row: Row, rules: _Rules, reference: Reference | None) -> float:
    if rules.scorer is None:
        raise FastgenError(
            f"row {row.id!r}: policy ags needs the score of its reference, and there is no CLIP to find it; "
            "give a scoring CLIP, or `score` in the row, or another policy (--policy uniform, or a number)"
        )
    assert row.ref is not None
    return rules.scorer(reference or rules.references.find(row.ref, label=row.label))


def _met(row: Row, header: Header, references: References) -> list[Reference]:
    """The references that a paired row meets: all of its class; or those of its shot, that is every n-th one, where n
    is the number of shots that the bank is made for.

    Raises:
        ReferenceImageError: the class has none.
    """
    found = references.of_class(row.class_)
    return found if row.shot is None else found[row.shot :: header.defaults["shots"]]


def _mode(row: Row, header: Header) -> str:
    return row.mode or header.defaults.get("mode") or "t2i"


def _is_paired(row: Row, header: Header, references: References, policy: Lambda = None) -> bool:
    """Whether a row meets every reference of its class, of which there must then be at least one."""
    mode = _mode(row, header)
    if row.ref is not None or mode == "latent":
        return False
    if mode == "img2img":
        return True
    asked = (row.lambda_, policy, header.defaults.get("lambda"), header.defaults.get("policy"))
    return not row.lambda_null and (not references.is_empty or any(given is not None for given in asked))
