"""`fastgen regenerate`: one image of a shard made again from its recorded row, and compared with the stored one."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgen.engine.load import load_engine
from fastgen.errors import DataError, EngineError, FastgenError, OutputError, ReferenceImageError
from fastgen.files import atomic_file
from fastgen.generate.run import generate
from fastgen.plan.references import find_references
from fastgen.production.engines import ENGINES
from fastgen.production.references import reference_loader
from fastgen.production.setup import EngineFacts, engine_facts
from fastgen.production.work import installed_versions
from fastgen.records import Header, Ref, Row
from fastgen.shards.layout import Layout, read_json, read_signature
from fastgen.shards.schema import STATUS_NAMES
from fastgen.shards.shard_file import ShardFile

if TYPE_CHECKING:
    from PIL import Image

    from fastgen.engine.load import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Regenerated:
    """One row, stored and made again.

    Attributes:
        shard: the shard file.
        place: of the row in it.
        row_id: of the row.
        stored, made: uint8 (H, W, 3) RGB; black where none could be made.
        stored_status, made_status: indices into STATUS_NAMES.
        made_reason: why the row failed now, or "".
        reasons: what differs between now and the run, and so may explain other pixels; one line each.
    """

    shard: Path
    place: int
    row_id: str
    stored: np.ndarray
    made: np.ndarray
    stored_status: int
    made_status: int
    made_reason: str
    reasons: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Same status, same pixels."""
        return self.stored_status == self.made_status and np.array_equal(self.stored, self.made)

    @property
    def difference(self) -> np.ndarray:
        """Absolute difference per value, int16 (H, W, 3), in grey levels."""
        return np.abs(self.stored.astype(np.int16) - self.made.astype(np.int16))

    def __str__(self) -> str:
        """What `fastgen regenerate` says."""
        where = f"{self.shard}:{self.place} (row {self.row_id!r})"
        if self.is_identical:
            return f"{where}: made again, identical"
        if self.stored_status != self.made_status:
            old, new = STATUS_NAMES[self.stored_status], STATUS_NAMES[self.made_status]
            line = f"{where}: the stored row is {old}, made again it is {new}"
            line += f" ({self.made_reason})" if self.made_reason else ""
        else:
            apart = self.difference
            share = (apart > 0).any(-1).mean()
            line = (
                f"{where}: differs by at most {apart.max()} of 255 grey levels, {apart.mean():.3f} on average, "
                f"in {share:.1%} of the pixels"
            )
        if not self.reasons:
            return (
                f"{line}; nothing that is recorded has changed: is the shard damaged (fastgen verify), or a reference?"
            )
        return "\n".join([f"{line}. Since then has changed:", *(f"  {reason}" for reason in self.reasons)])


def regenerate(
    shard: str,
    *,
    engine: "str | Path | Engine | None" = None,
    refs: str | Path | None = None,
    provider: str = "auto",
    out: str | Path | None = None,
) -> Regenerated:
    """Make one image again and compare it with the stored one.

    Args:
        shard: "SHARD:ROW": a shard file in an output folder, and the row's place in it from 0, or its id.
        engine: a folder, a name in engines/ or a loaded engine; None looks in engines/ for the one that made it.
        refs: folder of reference images, or "petworld"; None takes those of the run.
        provider: where ONNX Runtime computes: "auto", "cpu" or "cuda".
        out: a PNG to write: the stored image on the left, the new one on the right.

    Raises:
        FastgenError: no such shard, row, engine or reference.
        DataError: the stored image or row cannot be read.
    """
    path, wanted = _parse(shard)
    layout = Layout(path.resolve().parent.parent)
    header = Header.from_json(read_signature(layout)["header"])
    try:
        with ShardFile(path) as file:
            place = _place(file, wanted)
            row = Row.from_json(file.row(place), header)
            stored, status = file.image(place), int(file.column("status")[place])
            fingerprint = str(file.attributes["engine_fingerprint"])
    except OutputError as error:
        raise DataError(str(error)) from error
    facts = _find_engine(engine, fingerprint, layout)
    loaded = load_engine(facts.folder, provider=provider) if facts.folder is not None else engine
    assert loaded is not None and not isinstance(loaded, str | Path)
    (sample,) = generate([row], loaded, _loader(layout, header, refs, row))
    made = sample.image if sample.image is not None else np.zeros_like(stored)
    if made.shape != stored.shape:
        raise EngineError(f"engine {facts.spec.name} makes images of {made.shape}, the shard holds {stored.shape}")
    found = Regenerated(
        shard=path,
        place=place,
        row_id=row.id or "",
        stored=stored,
        made=made,
        stored_status=status,
        made_status=sample.status,
        made_reason=sample.reason,
        reasons=_reasons(layout, fingerprint, facts=facts, device=str(loaded.device)),
    )
    if out is not None:
        _write_png(Path(out), np.concatenate([stored, made], axis=1))
    return found


def _parse(text: str) -> tuple[Path, str]:
    name, colon, row = text.rpartition(":")
    if not colon or not name or not row:
        raise FastgenError(f"got {text!r}; allowed: SHARD:ROW, such as out/pets/shards/00000-r000.h5:17")
    path = Path(name)
    if not path.is_file():
        raise FastgenError(f"{path}: no such shard; allowed: SHARD:ROW, such as out/pets/shards/00000-r000.h5:17")
    return path, row


def _place(file: ShardFile, wanted: str) -> int:
    """The place that a number or an id means."""
    if wanted.isdecimal():
        if int(wanted) < len(file):
            return int(wanted)
        raise FastgenError(f"{file.path}: has no row {wanted}; allowed: 0 to {len(file) - 1}, or the id of a row")
    places = np.flatnonzero(file.column("row_id") == wanted)
    if len(places) == 0:
        raise FastgenError(f"{file.path}: has no row {wanted!r}; allowed: 0 to {len(file) - 1}, or the id of a row")
    return int(places[0])


def _find_engine(engine: "str | Path | Engine | None", fingerprint: str, layout: Layout) -> EngineFacts:
    """The engine that was given, or the one with the recorded fingerprint among those that are built."""
    if engine is not None:
        return engine_facts(engine)
    for folder in _engine_folders(layout):
        try:
            facts = engine_facts(folder)
        except FastgenError:
            continue  # an engine that is damaged did not make this shard, or cannot do so again
        if facts.fingerprint == fingerprint:
            return facts
    raise EngineError(
        f"no engine in {ENGINES}/ has the fingerprint {fingerprint[:12]}... of this shard; give its folder with "
        "--engine, or another one to see how far its image is from the stored one"
    )


def _engine_folders(layout: Layout) -> list[Path]:
    built = [path.parent for path in sorted(ENGINES.glob("*/engine.json"))]
    words = shlex.split(str(_report(layout).get("command", "")))
    named = [Path(words[i + 1]) for i, word in enumerate(words[:-1]) if word == "--engine"]
    return [folder for folder in [*named, *built] if (folder / "engine.json").is_file()]


def _loader(layout: Layout, header: Header, refs: str | Path | None, row: Row) -> "Callable[[Ref], Image.Image]":
    """Loads the reference of the row."""
    load = reference_loader(layout.out) if refs is None else None
    if refs is not None:
        load = find_references(str(refs), header, bank_dir=Path()).load
    if load is not None:
        return load
    if row.ref is not None or row.init is not None:
        raise ReferenceImageError(
            f"row {row.id!r}: the references of {layout.out} are not found from here; give their folder with "
            "--refs, or call from the folder in which the run was started"
        )
    return _no_reference


def _no_reference(ref: Ref) -> "Image.Image":
    raise ReferenceImageError(f"reference {ref.id!r}: is not known")


def _reasons(layout: Layout, fingerprint: str, *, facts: EngineFacts, device: str) -> tuple[str, ...]:
    """What is not as it was when the shard was made."""
    found = []
    if facts.fingerprint != fingerprint:
        found.append(f"engine: the shard's is {fingerprint[:12]}..., this one is {facts.fingerprint[:12]}...")
    report = _report(layout)
    now = installed_versions()
    for name, version in dict(report.get("versions", {})).items():
        if name in now and now[name] != version:
            found.append(f"{name}: was {version}, is {now[name]}")
    devices = sorted({str(rank["device"]) for rank in report.get("ranks", []) if rank.get("device")})
    if devices and device not in devices:
        found.append(f"device: was {', '.join(devices)}, is {device}")
    return tuple(found)


def _report(layout: Layout) -> dict[str, Any]:
    """Content of run.json; empty while the run is not finished, or when it is damaged."""
    try:
        report = read_json(layout.run)
    except OutputError:
        return {}
    return report if isinstance(report, dict) else {}


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    with atomic_file(path) as handle:
        Image.fromarray(image).save(handle, format="PNG")
