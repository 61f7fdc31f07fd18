"""The command line: help of every command, exit codes, and one clear line instead of a traceback."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fastgen.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"


def commands(group: click.Group, *before: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *before, name) if isinstance(command, click.Group) else [(*before, name)]
    return found


def fastgen(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.mark.parametrize("words", commands(main), ids=" ".join)
def test_every_command_has_help_and_is_in_the_readme(words: tuple[str, ...]) -> None:
    result = fastgen(*words, "--help")
    assert result.exit_code == 0
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    for option in command.params:
        assert isinstance(option, click.Argument) or option.help, option.name  # type: ignore[attr-defined]
    text = README.read_text(encoding="utf-8")
    assert f"fastgen {' '.join(words)}" in text or f"make {words[0]}" in text


def test_unknown_command_lists_the_known_ones() -> None:
    result = fastgen("generate")
    assert result.exit_code == 2
    assert "generate" in result.output


def test_a_wrong_bank_ends_with_code_2_and_its_place(tmp_path: Path) -> None:
    bank = tmp_path / "bad.jsonl"
    header = {"fastgen_bank": 1, "name": "bad", "classes": ["pug"], "score_template": "a photo of a {class}"}
    bank.write_text(json.dumps(header) + "\n" + json.dumps({"class": "pig", "prompt": "a pig"}) + "\n")
    result = fastgen("plan", "--bank", bank)
    assert result.exit_code == 2
    assert result.output.startswith("fastgen: ")


def test_run_without_an_engine_says_which_command_builds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bank = README.parent / "prompts" / "pets.jsonl"
    result = fastgen("run", "--bank", bank)
    assert result.exit_code == 2
    assert "fastgen build" in result.output
    assert not (tmp_path / "out").exists()


def test_build_of_a_missing_model_leaves_nothing(tmp_path: Path) -> None:
    result = fastgen("build", "--model", tmp_path / "nowhere", "--out", tmp_path / "engine")
    assert result.exit_code == 2
    assert "nowhere" in result.output
    assert list(tmp_path.iterdir()) == []


def test_template_bank_is_written_and_planned_from(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("pug\nmaine coon\n")
    out = tmp_path / "bank.jsonl"
    assert fastgen("bank", "template", "--classes", names, "--out", out).exit_code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0]["classes"] == ["pug", "maine coon"]
    assert [line["prompt"] for line in lines[1:]] == ["a photo of a pug", "a photo of a maine coon"]


def test_petworld_export_and_its_refusal(tmp_path: Path) -> None:
    out = tmp_path / "world"
    words = ("petworld", out, "--classes", "Pug,Beagle", "--per-class", 2, "--test-per-class", 1)
    assert fastgen(*words).exit_code == 0
    assert len(list(out.rglob("*.png"))) == 6
    wrong = fastgen(*words, "--split", "no-such-split")
    assert wrong.exit_code == 2
    assert "no-such-split" in wrong.output


def test_verify_of_an_empty_folder_is_not_good(tmp_path: Path) -> None:
    result = fastgen("verify", tmp_path)
    assert result.exit_code in (1, 2)
    assert str(tmp_path) in result.output
