"""Which engine a command means: the one it names, or the only one that was built."""

from pathlib import Path

from fastgen.errors import EngineError

ENGINES = Path("engines")
"""Where `fastgen build` puts engines, relative to the working directory."""

BUILD = "fastgen build --model mini"


def find_engine(engine: str | Path | None, *, folder: Path = ENGINES) -> Path:
    """Return the folder of the engine to use.

    Args:
        engine: a folder, the name of one in `folder`, or None for the only one there is.
        folder: where built engines lie.

    Raises:
        EngineError: no such engine, none built yet, or several and none was named.
    """
    built = sorted(path.parent for path in folder.glob("*/engine.json") if not path.parent.name.startswith("."))
    names = ", ".join(str(path) for path in built)
    if engine is not None:
        for path in (Path(engine), folder / engine):
            if (path / "engine.json").is_file():
                return path
        there = f"built so far: {names}" if built else f"none is built yet; build one: {BUILD}"
        raise EngineError(f"--engine {engine}: no folder with an engine.json; {there}")
    if not built:
        raise EngineError(f"no engine is built yet in {folder}/; build one: {BUILD}")
    if len(built) > 1:
        raise EngineError(f"there are {len(built)} engines; choose one with --engine: {names}")
    return built[0]
