"""FID of the generated images of each class against the real images of that class; the section `fid` of report.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgen.evaluate.fid import frechet_distance


def fid_entry(
    classes: Sequence[str], generated: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Measure every class that has two or more images on both sides, and all images together.

    Args:
        classes: names, in label order.
        generated: features of the generated images by class, (N, D).
        real: features of the real images by class.

    Returns:
        `mean` over the measured classes (None without any), `all` (all images of the measured classes together),
        `classes` (how many were measured), `dimensions` and `per_class`: `fid` (or None), `images`, `real`.
    """
    per_class: dict[str, Any] = {}
    measured = []
    for name in classes:
        mine, theirs = generated.get(name), real.get(name)
        counts = {"images": 0 if mine is None else len(mine), "real": 0 if theirs is None else len(theirs)}
        distance = None
        if mine is not None and theirs is not None and min(counts.values()) >= 2:
            distance = frechet_distance(mine, theirs)
            measured.append(name)
        per_class[name] = {"fid": distance, **counts}
    together = None
    if measured:
        sides = (np.concatenate([side[name] for name in measured]) for side in (generated, real))
        together = frechet_distance(*sides)
    distances = [per_class[name]["fid"] for name in measured]
    return {
        "mean": float(np.mean(distances)) if distances else None,
        "all": together,
        "classes": len(measured),
        "dimensions": int(next(iter(generated.values())).shape[1]),
        "per_class": per_class,
    }


def fid_notes(entry: Mapping[str, Any]) -> list[str]:
    """What to know before comparing the numbers, in sentences."""
    notes = []
    measured = [one for one in entry["per_class"].values() if one["fid"] is not None]
    left = len(entry["per_class"]) - len(measured)
    if left:
        notes.append(f"{left} classes have fewer than two generated or two real images and no FID")
    if not measured:
        return notes
    images, real = ([one[side] for one in measured] for side in ("images", "real"))
    if min(images) < max(images) or min(real) < max(real):
        notes.append(
            f"FID falls with the number of images: classes have {_range(images)} generated and {_range(real)} real "
            "ones, so their FIDs do not compare with each other; --fid-images makes the numbers equal"
        )
    notes.append(
        f"FID was measured with {_range(images)} generated and {_range(real)} real images per class: compare it only "
        "with reports of the same numbers and features"
    )
    if min(*images, *real) <= entry["dimensions"]:
        notes.append(
            f"a class has fewer images than the features have dimensions ({entry['dimensions']}): its FID is mostly "
            "the bias of small samples, and only orderings at equal numbers mean something"
        )
    return notes


def _range(counts: Sequence[int]) -> str:
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
