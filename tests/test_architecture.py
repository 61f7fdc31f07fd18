"""Imports point down: from the command line to the stages, from a stage to the leaves, and never back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "fastgen"
LEAF = set("errors files lock capacity fields row_parts header_parts class_words records job seeds context".split())
TOP = {"__init__", "__main__", "demo", *(path.stem for path in ROOT.glob("cli*.py"))}
MAY_IMPORT: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAF},
    "weights_hash": set(),
    "clip": {"weights_hash"},
    "petworld": set(),
    "bank": set(),
    "engine": set(),
    "shards": set(),
    "export": {"shards"},
    "dataset": {"shards"},
    "plan": {"bank", "clip", "petworld"},
    "methods": {"bank", "plan"},
    "caption": {"bank", "plan"},
    "generate": {"engine", "shards"},
    "train": {"shards", "clip", "weights_hash"},
    "evaluate": {"shards", "clip", "weights_hash", "bank", "plan"},
    "finetune": {"engine", "train", "evaluate"},
    "datasets": {"train"},
    "production": {"bank", "clip", "engine", "generate", "plan", "shards"},
    "cluster": {"bank", "production", "shards"},
}
HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "open_clip",
    "timm",
}
LIGHT_STAGES = LEAF | {"shards", "export", "petworld", "cluster"}
LIGHT_FILES = {
    f"bank/{name}.py"
    for name in "read unique references write template defaults deal img2img class_names dalda dalda_json chat "
    "answer_cache asking endpoint instruction sentences rounds llm captions caption_text".split()
}
FILES = sorted(ROOT.rglob("*.py"))


def stage_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every imported module of a file with its line, also those imported inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return found


def wrong_imports(path: Path, stage: str) -> list[str]:
    """Say which imports of a file leave the layers, as messages."""
    wrong = []
    for line, module in imports_of(path):
        where = f"{path.name}:{line}"
        if module.startswith("."):
            wrong.append(f"{where}: write the import from fastgen on, not relative")
        elif module == "fastgen" and stage not in TOP and not _takes_only_the_version(path, line):
            wrong.append(f"{where}: write 'from fastgen.x import y', so that this test sees x")
        elif module.startswith("fastgen.") and stage not in TOP:
            used = module.split(".")[1]
            if used not in {stage} | LEAF | MAY_IMPORT[stage]:
                wrong.append(f"{where}: {stage} may not import {used}")
    return wrong


def _takes_only_the_version(path: Path, line: int) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.lineno == line:
            return [alias.name for alias in node.names] == ["__version__"]
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    stage = stage_of(path)
    assert stage in TOP | set(MAY_IMPORT), (
        f"{stage} is new: give it a line in MAY_IMPORT and say what it may import"
    )
    assert wrong_imports(path, stage) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_banks_and_shards_open_without_torch(path):
    if stage_of(path) in LIGHT_STAGES or str(path.relative_to(ROOT)) in LIGHT_FILES:
        heavy = [(line, module) for line, module in imports_of(path) if module.split(".")[0] in HEAVY]
        assert heavy == [], "this file is used on login nodes and must not need these packages"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=lambda p: p.parent.name)
def test_packages_export_nothing(path):
    if path.parent != ROOT:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body), (
            "docstring at most"
        )


def test_what_login_nodes_use_loads_nothing_heavy():
    modules = "fastgen.bank.read, fastgen.job, fastgen.cli, fastgen.cluster.submit, fastgen.cluster.table"
    code = f"import sys, {modules}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "code, message",
    [
        ("from fastgen.cli import main", "bank may not import cli"),
        ("def f():\n    from fastgen.engine.load import x", "x.py:2: bank may not import engine"),
        ("import fastgen.generate.run", "bank may not import generate"),
        ("from fastgen import engine", "write 'from fastgen.x import y'"),
        ("from . import read", "not relative"),
    ],
)
def test_this_test_sees_every_way_to_import(tmp_path, code, message):
    path = tmp_path / "x.py"
    path.write_text(code)
    assert message in wrong_imports(path, "bank")[0]


def test_allowed_imports_are_allowed(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("import json\nfrom fastgen import __version__\nfrom fastgen.records import Row\n")
    assert wrong_imports(path, "bank") == []
