"""A statement of a paper, the differences that were measured for it, and what they say together.

A relation *holds* when the interval of every difference it names lies on the expected side of zero, *fails* when one
lies on the other side, and is *open* otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro.interval import Interval

VERDICTS = {"holds": "holds", "open": "open: an interval contains zero", "fails": "does not hold"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One measured difference; `expected` is +1 or -1, the side of zero that the relation names."""

    what: str
    interval: Interval
    expected: int

    @property
    def side(self) -> int:
        """+1: as expected, -1: the opposite, 0: the interval contains zero."""
        low, high = sorted((self.expected * self.interval.low, self.expected * self.interval.high))
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True, slots=True)
class Relation:
    """A statement of the paper and what was measured."""

    number: int
    statement: str
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """`holds`, `fails` or `open`."""
        sides = [difference.side for difference in self.differences]
        return "holds" if min(sides) > 0 else "fails" if min(sides) < 0 else "open"

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        return {
            "number": self.number,
            "statement": self.statement,
            "verdict": self.verdict,
            "differences": [
                {"what": d.what, "expected": "> 0" if d.expected > 0 else "< 0", **d.interval.to_json()}
                for d in self.differences
            ],
        }


def relation_lines(relations: Sequence[Relation]) -> list[str]:
    """Markdown: every relation with its verdict, and a table of its differences."""
    lines = []
    for relation in relations:
        lines += [f"**{relation.number}. {relation.statement}**: {VERDICTS[relation.verdict]}.", ""]
        lines += ["| difference | expected | measured |", "|---|---|---|"]
        for d in relation.differences:
            mark = {1: "", 0: " (open)", -1: " (opposite)"}[d.side]
            sign = ">" if d.expected > 0 else "<"
            lines.append(f"| {d.what} | {sign} 0 | {d.interval.text(4, signed=True)}{mark} |")
        lines.append("")
    return lines


def verdict_line(relations: Sequence[Relation]) -> str:
    """How many of them hold."""
    counts = {verdict: sum(r.verdict == verdict for r in relations) for verdict in VERDICTS}
    return f"Of {len(relations)} relations {counts['holds']} hold; open: {counts['open']}, failing: {counts['fails']}."
