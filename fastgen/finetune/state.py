"""What a fine-tuning keeps on disk: what it is, how far it is, and its log; so that the same command goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.errors import OutputError
from fastgen.files import atomic_file, atomic_write_text, read_jsonl, sha256_json, write_jsonl

FORMAT = 1
"""Version of finetune.json."""

ABOUT_FILE, CHECKPOINT, LOG_FILE = "finetune.json", "checkpoint.pt", "log.jsonl"


class Folder:
    """The output folder of one fine-tuning.

    Attributes:
        path: of the folder.
        settings: everything that decides the weights, as JSON.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Nothing is read or written yet."""
        self.path, self.settings = path, json.loads(json.dumps(settings))

    def open(self) -> bool:
        """Make the folder, or check that it belongs to the same fine-tuning.

        Returns:
            Whether that one is finished.

        Raises:
            OutputError: it holds another one, or something else.
        """
        file = self.path / ABOUT_FILE
        if file.is_file():
            about = _read_about(file)
            different = _differences(about["settings"], self.settings)
            if different:
                raise OutputError(f"{self.path}: holds a fine-tuning with {different}; choose another --out")
            return bool(about.get("finished"))
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(f"{self.path}: exists, and holds no fine-tuning; choose another --out or remove it")
        self.write_about(finished=None)
        return False

    def write_about(self, *, finished: Mapping[str, Any] | None) -> None:
        """Write finetune.json; `finished` holds what is known at the end."""
        about = {"fastgen_finetune": FORMAT, "settings": self.settings, "finished": finished}
        atomic_write_text(self.path / ABOUT_FILE, json.dumps(about, indent=1, ensure_ascii=False) + "\n")

    def save(self, step: int, parameters: Mapping[str, nn.Parameter], **states: Any) -> None:
        """Write the checkpoint, all of it or nothing.

        Args:
            step: steps that are done.
            parameters: what is trained, by name.
            states: of the optimiser and whatever else goes on; tensors, numbers, lists and dicts only.
        """
        content = {"step": step, "settings": sha256_json(self.settings), **states}
        content["parameters"] = {name: value.detach().cpu() for name, value in parameters.items()}
        with atomic_file(self.path / CHECKPOINT) as handle:
            torch.save(content, handle)

    def load(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any] | None:
        """Read the checkpoint into the parameters; return its other content, None if there is none.

        Raises:
            OutputError: it is damaged or of another fine-tuning.
        """
        path = self.path / CHECKPOINT
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            saved: dict[str, Tensor] = content.pop("parameters")
            fits = content["settings"] == sha256_json(self.settings) and saved.keys() == parameters.keys()
        except Exception as error:  # torch raises many unrelated types for a damaged file
            raise OutputError(f"{path} cannot be read: {error}; remove it to start again") from error
        if not fits:
            raise OutputError(f"{path} belongs to another fine-tuning; remove it, or choose another --out")
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(saved[name])
        return content

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint of a finished fine-tuning."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)

    def cut_log(self, step: int) -> None:
        """Forget log lines after a step: they are of steps that are done again."""
        path = self.path / LOG_FILE
        lines = self.read_log() if path.is_file() else []
        write_jsonl(path, [line for line in lines if line["step"] <= step])

    def append_log(self, lines: list[dict[str, Any]]) -> None:
        """Add lines to the log."""
        with open(self.path / LOG_FILE, "a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(line) + "\n" for line in lines)

    def read_log(self) -> list[dict[str, Any]]:
        """The log's lines, without one that was cut off when the process was killed."""
        path = self.path / LOG_FILE
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text and not text.endswith("\n"):
            atomic_write_text(path, text[: text.rfind("\n") + 1])
        return list(read_jsonl(path)) if text else []


def _read_about(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["fastgen_finetune"] != FORMAT or not isinstance(about["settings"], dict):
            raise ValueError(f"version {about['fastgen_finetune']!r}, this fastgen reads {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} cannot be read ({error}); choose another --out or remove the folder") from error
    return about


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs, in words; "" if nothing does."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return ", ".join(f"{name} {json.dumps(old.get(name))} instead of {json.dumps(new.get(name))}" for name in names[:5])
