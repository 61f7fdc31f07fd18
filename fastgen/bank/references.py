"""Look for the reference files that rows name: inside their folder, and really there."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from fastgen.errors import FieldErrors, FieldProblem, ReferenceImageError
from fastgen.fields import show
from fastgen.header_parts import PETWORLD
from fastgen.records import Header, Row

ReferenceCheck = Callable[[Row], FieldProblem | None]


def reference_check(
    bank_dir: Path, header: Header, refs: str | Path | None, exists: Callable[[Row], str | None] | None
) -> ReferenceCheck:
    """Return a function that says what is wrong with the reference of a row that has one.

    Args:
        bank_dir: folder of the bank.
        header: its `defaults.refs` is the folder of references when `refs` is None.
        refs: the user's --refs, a folder or "petworld".
        exists: when given, it alone decides; it returns what is wrong, or None.

    Raises:
        FieldErrors: the header's folder does not exist.
        ReferenceImageError: the user's folder does not exist.
    """
    if exists is not None:
        return lambda row: _as_problem("ref", row.ref.id if row.ref else None, exists(row))
    roots = [*_refs_folder(bank_dir, header, refs), bank_dir]

    @lru_cache(maxsize=4096)
    def trouble(path: str) -> str | None:
        return _trouble(path, roots)

    def check(row: Row) -> FieldProblem | None:
        if row.ref is None or row.ref.path is None:
            return None  # an id alone is looked up by the plan, which knows all references
        return _as_problem("ref.path", row.ref.path, trouble(row.ref.path))

    return check


def _as_problem(field: str, got: str | None, trouble: str | None) -> FieldProblem | None:
    return None if trouble is None else FieldProblem(field, show(got), f"a reference that exists; {trouble}")


def _refs_folder(bank_dir: Path, header: Header, refs: str | Path | None) -> list[Path]:
    """Return the folder of references, or nothing when they are drawn on the fly or lie beside the bank."""
    if refs is not None:
        if str(refs) == PETWORLD:
            return []
        if not Path(refs).is_dir():
            raise ReferenceImageError(
                f"--refs {refs}: no such folder; give a folder of images, or {PETWORLD}"
            )
        return [Path(refs)]
    default = header.defaults.get("refs")
    if default in (None, PETWORLD):
        return []
    folder = bank_dir / default
    if not folder.is_dir():
        allowed = (
            f'a folder relative to the bank, or "{PETWORLD}"; {folder} is no folder: make it or pass --refs'
        )
        raise FieldErrors([FieldProblem("defaults.refs", show(default), allowed)])
    if not folder.resolve().is_relative_to(bank_dir.resolve()):
        allowed = f"a folder inside the bank's; {folder} is a link that leaves it: pass --refs"
        raise FieldErrors([FieldProblem("defaults.refs", show(default), allowed)])
    return [folder]


def _trouble(path: str, roots: list[Path]) -> str | None:
    """Say why a relative path is no usable file under any of the folders, or None if it is."""
    looked = " or ".join(map(str, roots))
    outside = False
    for root in roots:
        try:
            target = (root / path).resolve()
            if not target.is_relative_to(root.resolve()):
                outside = True
            elif target.is_file():
                return None
        except (OSError, RuntimeError):  # a name too long; links that go round in a circle
            continue
    if outside:
        return f"this one is a link that leaves {looked}: copy the image there"
    return f"there is no such file in {looked}: check the name, or pass --refs"
