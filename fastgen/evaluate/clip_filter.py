"""`fastgen filter`: Diff-Mix's filter, a CLIP that says on which images there is nothing of the kind wanted.

Its published code asks "a photo with a bird on it" against "a photo without a bird on it" and drops the tenth of all
images, of all classes together, with the least probability of the first.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from fastgen.bank.caption_text import caption_text
from fastgen.clip import ScoringClip
from fastgen.errors import FastgenError
from fastgen.evaluate.class_images import open_good
from fastgen.evaluate.measure import load_clip
from fastgen.shards.read import Output
from fastgen.shards.selection import write_selection

WITH, WITHOUT = "a photo with a {class} on it", "a photo without a {class} on it"
BATCH = 64


def filter_images(
    out: str | Path,
    *,
    descriptor: str,
    clip: str | Path | None = None,
    percentile: float = 10.0,
    to: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Score the good images of an output folder and write which of them to train on.

    Args:
        out: an output folder of `fastgen run`.
        descriptor: noun for what the images should show, such as "bird".
        clip: as `ScoringClip.load` takes it; None is the embedded model's scoring CLIP.
        percentile: an image is kept if its score is at least this percentile of all scores, 0 to 100.
        to: file to write; None is `out`/filter.jsonl.
        say: is told how many images are kept.

    Returns:
        the file, for `fastgen train --keep`; see `fastgen.shards.selection`.

    Raises:
        FastgenError: an argument cannot be used.
        ModelError: there is no such CLIP.
        OutputError: there are no shards, or one is damaged.
        DataError: no image is good.
    """
    if not 0 <= percentile < 100:
        raise FastgenError(f"percentile: got {percentile:g}, allowed: 0 (keep all) to below 100")
    if not descriptor.strip():
        raise FastgenError("descriptor: got none, allowed: a noun for what the images should show, such as bird")
    output = open_good(out)
    model = load_clip(clip, device="cuda" if torch.cuda.is_available() else "cpu")
    texts = [caption_text(template, descriptor.strip(), article="fix") for template in (WITH, WITHOUT)]
    scores = presence_scores(output, model, texts)
    threshold = float(np.percentile(scores, percentile))
    keep = scores >= threshold
    about = {
        "rule": "clip", "texts": texts, "model": "mini" if clip is None else str(clip), "model_sha256": model.sha256,
        "percentile": percentile, "threshold": threshold, "images": len(keep), "kept": int(keep.sum()),
    }  # fmt: skip
    path = write_selection(to if to is not None else Path(out) / "filter.jsonl", about, _lines(output, scores, keep))
    say(f"{keep.sum()} of {len(keep)} images are kept: their probability of {texts[0]!r} is at least {threshold:.4g}")
    return path


def presence_scores(output: Output, clip: ScoringClip, texts: list[str]) -> np.ndarray:
    """The probability of the first of two texts for every good row, float64 (number of good rows,)."""
    first, second = clip.embed_texts(texts).astype(np.float64)
    starts = range(0, len(output.good), BATCH)
    scores = []
    bar = {"console": Console(stderr=True), "transient": True, "disable": not sys.stderr.isatty()}
    for start in track(starts, "images, in batches", **bar):  # type: ignore[arg-type]
        part = output.images(output.good[start : start + BATCH])
        vectors = clip.embed_images([Image.fromarray(image) for image in part], batch=BATCH).astype(np.float64)
        scores.append(1 / (1 + np.exp(clip.scale * (vectors @ (second - first)))))  # softmax of two
    return np.concatenate(scores)


def _lines(output: Output, scores: np.ndarray, keep: np.ndarray) -> list[dict[str, Any]]:
    ids, hashes = output.column("row_id"), output.column("image_sha256")
    return [
        {"id": ids[row], "image_sha256": hashes[row].decode(), "score": float(score), "keep": bool(kept)}
        for row, score, kept in zip(output.good, scores, keep, strict=True)
    ]
