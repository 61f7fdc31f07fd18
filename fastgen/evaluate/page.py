"""A page of headings, paragraphs, tables and pictures, as Markdown or as one HTML file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

CSS = """
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1c1e21;
       background: #f5f6f8; margin: 0; }
main { max-width: 1080px; margin: 32px auto; padding: 24px 48px 48px; background: #fff;
       border-radius: 10px; box-shadow: 0 1px 3px rgb(0 0 0 / 12%); }
h1 { font-size: 30px; margin: 16px 0 4px; } h2 { font-size: 20px; margin: 40px 0 8px; }
p { max-width: 76ch; } img { max-width: 100%; height: auto; display: block; margin: 12px 0; }
table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 18px 7px 0; text-align: left; border-bottom: 1px solid #dde0e4; }
th { font-weight: 600; }
td:not(:first-child), th:not(:first-child) { text-align: right; }
.facts td:not(:first-child) { text-align: left; }
code { background: #f0f2f4; padding: 2px 6px; border-radius: 4px; font-size: 14px; }
.lead { font-size: 18px; } .note { color: #686d75; font-size: 14px; }
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; `kind` is `lead`, `note` or empty."""

    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first row is its head."""

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG beside the report, with the text that stands for it."""

    path: Path
    alt: str


Part = Text | Grid | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: Sequence[Part]


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; pictures are links to the files beside it."""
    lines = [f"# {title}", ""]
    for section in sections:
        if section.heading:
            lines += [f"## {section.heading}", ""]
        for part in section.parts:
            if isinstance(part, Picture):
                lines += [f"![{part.alt}]({part.path.name})", ""]
            elif isinstance(part, Grid):
                head, *body = [[cell.replace("|", "\\|") for cell in row] for row in part.rows]
                rule = ["---", *["---:"] * (len(head) - 1)]
                lines += [f"| {' | '.join(row)} |" for row in (head, rule, *body)] + [""]
            else:
                lines += [f"**{part.text}**" if part.kind == "lead" else part.text, ""]
    return "\n".join(lines)


def web_page(title: str, sections: Sequence[Section]) -> str:
    """The report as one HTML page; pictures are inside it."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        if section.heading:
            body.append(f"<h2>{html.escape(section.heading)}</h2>")
        body += [_html_part(part) for part in section.parts]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _html_part(part: Part) -> str:
    if isinstance(part, Picture):
        data = base64.b64encode(part.path.read_bytes()).decode()
        with Image.open(part.path) as image:
            size = f'width="{image.width}" height="{image.height}"'
        return f'<img {size} alt="{html.escape(part.alt, quote=True)}" src="data:image/png;base64,{data}">'
    if isinstance(part, Text):
        pieces = html.escape(part.text).split("`")
        text = "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
        return f'<p class="{part.kind}">{text}</p>' if part.kind else f"<p>{text}</p>"
    head, *body = part.rows
    kind = "" if any(head) else ' class="facts"'
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head) if any(head) else ""
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
    return (
        f"<table{kind}>"
        + "".join(f"<tr>{row}</tr>" for row in ([cells] if cells else []) + rows)
        + "</table>"
    )
