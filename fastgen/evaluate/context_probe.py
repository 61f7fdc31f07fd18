"""What context generated images show: P(context | class), mutual information, and whether it is what was asked for.

For every attribute (background, pose) a linear probe is fitted to the features of real images whose attributes are
known, and applied to the generated ones. This is the section `context` of report.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgen.context import independence
from fastgen.errors import DataError
from fastgen.evaluate.linear_probe import fit_probe, held_out_accuracy

LEAST = 5
"""Real images that a value needs; rarer ones are left out, because no probe can be fitted or checked with fewer."""


def context_entry(
    real: np.ndarray,
    captions: Sequence[Mapping[str, str]],
    generated: np.ndarray,
    *,
    classes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Measure every attribute.

    Args:
        real: features of the real images, (R, D).
        captions: their attributes, R times name -> value, all with the same names.
        generated: features of the generated images, (N, D).
        classes: class of every generated image.
        rows: their rows; `attrs` says what was asked for.

    Returns:
        Per attribute: `values` (known to the probe), `real` (images it was fitted to), `left_out` (of rare values),
        `accuracy` (on real images it had not seen), `chance` (share of the commonest value), `table` (class -> value ->
        share of the generated images), `independence` (of class and value, see `Independence`), `requested` (`images`
        that asked for a known value, and the share `right` of them that show it).

    Raises:
        DataError: an attribute has fewer than two values with enough real images.
    """
    return {
        name: _attribute(name, real, captions, generated, classes=classes, rows=rows) for name in captions[0]
    }


def _attribute(
    name: str,
    real: np.ndarray,
    captions: Sequence[Mapping[str, str]],
    generated: np.ndarray,
    *,
    classes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    counts = Counter(caption[name] for caption in captions)
    values = {value for value, count in counts.items() if count >= LEAST}
    if len(values) < 2:
        raise DataError(
            f"context probe: {name} has {len(values)} values with {LEAST} or more real images; a probe needs at least "
            f"2. Give more images, or captions with few different values (there are {len(counts)})"
        )
    kept = [i for i, caption in enumerate(captions) if caption[name] in values]
    labels = [captions[i][name] for i in kept]
    probe = fit_probe(real[kept], labels)
    shown = probe.predict(generated)
    asked = [(row.get("attrs") or {}).get(name) for row in rows]
    known = [(want, seen) for want, seen in zip(asked, shown, strict=True) if want in values]
    return {
        "values": sorted(values),
        "real": len(kept),
        "left_out": len(captions) - len(kept),
        "accuracy": held_out_accuracy(real[kept], labels),
        "chance": max(Counter(labels).values()) / len(labels),
        "table": _table(classes, shown, sorted(values)),
        "independence": independence(classes, shown).to_json(),
        "requested": {
            "images": len(known),
            "right": sum(want == seen for want, seen in known) / len(known) if known else None,
        },
    }


def _table(classes: Sequence[str], shown: Sequence[str], values: Sequence[str]) -> dict[str, dict[str, float]]:
    """P(value | class) of the generated images; every class sums to 1."""
    counts = {name: Counter[str]() for name in dict.fromkeys(classes)}
    for name, value in zip(classes, shown, strict=True):
        counts[name][value] += 1
    return {name: {v: count[v] / sum(count.values()) for v in values} for name, count in counts.items()}


def context_notes(entry: Mapping[str, Any]) -> list[str]:
    """What to know before believing the numbers, in sentences."""
    notes = []
    for name, one in entry.items():
        if one["left_out"]:
            notes.append(
                f"{one['left_out']} real images have a {name} that fewer than {LEAST} of them share, and are left out"
            )
        if one["accuracy"] < one["chance"] + 0.1:
            notes.append(
                f"the probe of {name} is right on {one['accuracy']:.0%} of held-out real images, and saying always the "
                f"same on {one['chance']:.0%}: its table says little"
            )
        found = one["independence"]
        notes.append(
            f"I(class; {name}) of the generated images is {found['mutual_information']:.3f} nats, of which "
            f"{found['bias']:.3f} are expected if they are independent (p {found['p']:.3g})"
        )
    return notes
