"""Which classes a text names, so that a sentence ends up under its own class and under no other."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fastgen.errors import BankError, FastgenError

_KEEP_S = ("ss", "us", "is")
"""Endings of names that are no plurals: grass, cactus, iris."""


class ClassNames:
    """The class list of a bank, ready to be looked for in texts.

    Case, and blanks, hyphens and underscores between words, make no difference. A name also matches its plural
    (pugs, foxes), and a name in the plural its singular (airplanes: an airplane).
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Prepare the search.

        Raises:
            BankError: two names differ in nothing that a sentence would show.
        """
        self._class_of: dict[str, str] = {}
        for class_ in classes:
            other = self._class_of.setdefault(_folded(class_), class_)
            if other != class_:
                raise BankError(
                    [f"classes: got {other!r} and {class_!r}, allowed: names that differ in more than case and spacing"]
                )
        forms = dict(self._class_of)
        for folded, class_ in self._class_of.items():
            if folded.endswith("s") and not folded.endswith(_KEEP_S) and len(folded) > 3:
                forms.setdefault(folded[:-1], class_)
        self._forms = forms
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?:s|es)?(?!\w)")

    def class_of(self, name: str) -> str | None:
        """Return the class that is spelt `name`, up to case and spacing; None if there is none."""
        return self._class_of.get(_folded(name))

    def named_in(self, text: str) -> list[str]:
        """Return the classes that a text names, each once, as they appear; in a longer name no shorter one counts."""
        return list(dict.fromkeys(self._forms[form] for form in self._pattern.findall(_folded(text))))

    def fault(self, class_: str, text: str) -> str | None:
        """Say why a text is no sentence of a class: it does not name it, or it names another one; else None."""
        named = self.named_in(text)
        others = [name for name in named if name != class_]
        if others:
            return f"it names another class: {', '.join(others)}"
        return None if named else f"it does not contain the class name {class_!r}"


def read_class_names(path: str | Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        FastgenError: it is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FastgenError(f"{path}: got bytes that are not UTF-8 ({error}); save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def folder_class(name: str) -> str:
    """The class that a folder holds: its name with blanks for `_`, as training captions write it."""
    return name.replace("_", " ")


def _folded(text: str) -> str:
    """Return a text in the one spelling in which names are compared."""
    text = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").casefold()
    return re.sub(r"[\s_-]+", " ", text).strip()
