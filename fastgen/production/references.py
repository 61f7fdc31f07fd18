"""The references of a run that is already on disk, for whoever wants to show them."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.errors import FastgenError
from fastgen.plan.references import find_references
from fastgen.records import Header, Ref
from fastgen.shards.layout import Layout

if TYPE_CHECKING:
    from PIL import Image


def reference_loader(out: str | Path) -> "Callable[[Ref], Image.Image] | None":
    """A function that loads the references of an output folder's rows.

    Args:
        out: the output folder.

    Returns:
        None when their folder cannot be found any more.
    """
    layout = Layout(Path(out))
    try:
        plan = json.loads(layout.signature.read_text(encoding="utf-8"))
        header = Header.from_json(plan["header"])
        arguments = plan["arguments"]
        return find_references(
            arguments["refs"], header, bank_dir=_bank_folder(layout), shots=arguments["shots"], seed=plan["seed"]
        ).load
    except (OSError, ValueError, KeyError, TypeError, FastgenError):
        return None


def _bank_folder(layout: Layout) -> Path:
    """The folder of the bank as run.json's command names it; the working folder while a run is unfinished."""
    if not layout.run.exists():
        return Path()
    words = shlex.split(json.loads(layout.run.read_text(encoding="utf-8"))["command"])
    return Path(words[words.index("--bank") + 1]).parent
