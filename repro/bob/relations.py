"""What BOB's paper says that a miniature can show, each with its measured differences (card, section 4)."""

from collections.abc import Callable, Sequence

from repro.bob.arms import ABLATION, METHODS, SHOTS, STEPS
from repro.bob.results import Results
from repro.interval import bootstrap
from repro.relation import Difference, Relation

BEST = "preserve-dataset"
DATADREAM = "plain-none"
ATTRIBUTES = ("background", "pose")


def relations(results: Results) -> list[Relation]:
    """Measures all of them; those whose arms are missing are left out."""
    makers: Sequence[tuple[str, Callable[[Results], list[Difference]]]] = (
        ("Preservation with data-set marginalisation is the best cell of the ablation (Table 3)", _best),
        ("Preservation helps only with data-set marginalisation: an interaction (Table 3)", _interaction),
        ("Class marginalisation is no help, and harms with preservation (Table 3)", _class_level),
        ("Class and shown context are least dependent in that cell (section 3.2)", _information),
        ("A context that is asked for is shown more often with preservation (section 3.1)", _control),
        ("BOB is better than DataDream after any number of steps, and gains more by further ones (Table 6)", _length),
        ("BOB is better than real images alone and than every other method (Table 1)", _methods),
        ("Real images with BOB are better than twice as many real ones alone (Table 1)", _ten),
        ("Images of BOB are nearer to the real ones of their class than DataDream's: FID per class (section 4)", _fid),
        ("In a long tail the rare classes gain most (Table 2)", _long_tail),
    )  # fmt: skip
    made = [(text, tuple(make(results))) for text, make in makers]
    return [Relation(n, text, found) for n, (text, found) in enumerate([one for one in made if one[1]], start=1)]


def _gain(results: Results, more: str, less: str, *, expected: int = 1) -> Difference:
    values = results.accuracy(more) - results.accuracy(less)
    return Difference(f"accuracy, {_title(more)} minus {_title(less)}", bootstrap(values), expected)


def _title(arm: str) -> str:
    return {name: title for name, title in ((cell.name, cell.title) for cell in ABLATION)}.get(arm, arm)


def _best(results: Results) -> list[Difference]:
    return [_gain(results, BEST, cell.name) for cell in ABLATION if cell.name != BEST]


def _interaction(results: Results) -> list[Difference]:
    acc = results.accuracy
    with_dataset = acc(BEST) - acc("plain-dataset")
    without = acc("preserve-none") - acc("plain-none")
    return [
        Difference("gain by preservation, with data-set marginalisation", bootstrap(with_dataset), 1),
        Difference("gain by preservation, without marginalisation", bootstrap(without), -1),
        Difference("the first gain minus the second", bootstrap(with_dataset - without), 1),
    ]


def _class_level(results: Results) -> list[Difference]:
    return [
        _gain(results, "preserve-class", "preserve-none", expected=-1),
        _gain(results, "plain-dataset", "plain-class"),
    ]


def _information(results: Results) -> list[Difference]:
    return [
        Difference(
            f"I(class; {attribute}) in nats, {_title(BEST)} minus {cell.title}",
            bootstrap(results.information(BEST, attribute) - results.information(cell.name, attribute)),
            -1,
        )
        for attribute in ATTRIBUTES
        for cell in ABLATION
        if cell.name != BEST
    ]


def _control(results: Results) -> list[Difference]:
    return [
        Difference(
            f"share with the {attribute} that was asked for, {_title(BEST)} minus {_title('plain-dataset')}",
            bootstrap(results.right(BEST, attribute) - results.right("plain-dataset", attribute)),
            1,
        )
        for attribute in ATTRIBUTES
    ]


def _length(results: Results) -> list[Difference]:
    def arm(name: str, steps: int) -> str:
        return name if steps == STEPS[-1] else f"{name}-{steps}"

    if not all(results.has(arm(name, steps)) for name in (BEST, DATADREAM) for steps in STEPS):
        return []
    found = [
        Difference(
            f"accuracy after {steps} steps, BOB minus DataDream",
            bootstrap(results.accuracy(arm(BEST, steps)) - results.accuracy(arm(DATADREAM, steps))),
            1,
        )
        for steps in STEPS
    ]
    rise = {name: results.accuracy(name) - results.accuracy(arm(name, STEPS[0])) for name in (BEST, DATADREAM)}
    what = f"rise from {STEPS[0]} to {STEPS[-1]} steps, BOB minus DataDream"
    return [*found, Difference(what, bootstrap(rise[BEST] - rise[DATADREAM]), 1)]


def _methods(results: Results) -> list[Difference]:
    real = results.accuracy(BEST) - results.accuracy(BEST, "real")
    others = [(name, title) for name, title in METHODS if name != BEST and results.has(name)]
    return [
        Difference("accuracy, BOB minus real alone", bootstrap(real), 1),
        *(
            Difference(f"accuracy, BOB minus {title}", bootstrap(results.accuracy(BEST) - results.accuracy(name)), 1)
            for name, title in others
        ),
    ]


def _ten(results: Results) -> list[Difference]:
    if not results.has(f"real-{2 * SHOTS}"):
        return []
    values = results.accuracy(BEST) - results.accuracy(f"real-{2 * SHOTS}", "real")
    return [Difference(f"accuracy, {SHOTS} real and BOB minus {2 * SHOTS} real", bootstrap(values), 1)]


def _fid(results: Results) -> list[Difference]:
    return [Difference("FID, BOB minus DataDream", bootstrap(results.fid(BEST) - results.fid(DATADREAM)), -1)]


def _long_tail(results: Results) -> list[Difference]:
    if not results.has("long-tail"):
        return []
    gain = {
        group: results.accuracy("long-tail", group=group) - results.accuracy("long-tail", "real", group)
        for group in ("many", "few", "macro")
    }
    return [
        Difference("gain of all classes", bootstrap(gain["macro"]), 1),
        Difference("gain of few minus gain of many", bootstrap(gain["few"] - gain["many"]), 1),
    ]
