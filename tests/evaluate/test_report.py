"""The report says what the numbers say, and its HTML needs no other file."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console

from fastgen.errors import FastgenError
from fastgen.evaluate.accuracy_plot import accuracy_plot
from fastgen.evaluate.histogram import png
from fastgen.evaluate.lambda_strip import LambdaStrip
from fastgen.evaluate.report import accuracy_rows, accuracy_table, verdict, write_report

RED = Image.new("RGB", (64, 64), (200, 0, 0))


def spread(values):
    mean = sum(values) / len(values)
    few = len(values) < 2
    return {"mean": mean, "std": None if few else 0.01, "ci95": None if few else [mean - 0.02, mean + 0.02]}


def make_metrics(real, both=None):
    def arm(values):
        seeds = [{"seed": i, "accuracy_macro": v, "accuracy_micro": v} for i, v in enumerate(values)]
        return {"accuracy_macro": spread(values), "accuracy_micro": spread(values), "seeds": seeds}

    metrics = {"classes": ["a", "b"], "arms": {"real": arm(real)}, "difference": None}
    if both is not None:
        metrics["arms"]["real+synthetic"] = arm(both)
        changes = [b - a for a, b in zip(real, both, strict=True)]
        one = {"per_seed": changes, **spread(changes)}
        metrics["difference"] = {"accuracy_macro": one, "accuracy_micro": one}
    return metrics


BETTER = make_metrics([0.50, 0.52, 0.51], [0.60, 0.61, 0.62])


class Tags(HTMLParser):
    """Collects tags and checks that they are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path):
    RED.save(tmp_path / "sheet.png")
    strip = LambdaStrip(reference=RED, prompt="a <b> dog", lambdas=(0, 0.25, 0.5, 0.75, 1), images=[RED] * 5)
    return write_report(
        tmp_path / "report", title="A & B", metrics=BETTER, contact_sheet=tmp_path / "sheet.png",
        histograms=tmp_path / "sheet.png", strips=[strip], facts={"images": "1 000"}, command="make demo",
    )  # fmt: skip


def test_html_is_whole_and_holds_its_pictures(report):
    text = report.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.sources) == 4
    for source in tags.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "A &amp; B" in text and "<code>make demo</code>" in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_markdown_has_table_and_links_to_files_that_exist(report):
    text = (report.parent / "report.md").read_text()
    assert "| real | 51.0 | 1.0 | 49.0 to 53.0 | 51.0 |" in text
    assert "| difference (points) | +10.0 | 1.0 | +8.0 to +12.0 | +10.0 |" in text
    names = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert names == ["accuracy.png", "lambda_strip.png", "contact_sheet.png", "histograms.png"]
    assert all((report.parent / name).is_file() for name in names)


def test_strip_picture_has_six_squares(report):
    with Image.open(report.parent / "lambda_strip.png") as strip:
        assert strip.width > 6 * 160 and strip.height > 160


@pytest.mark.parametrize(
    ("real", "both", "sentence"),
    [
        ([0.5, 0.5], [0.6, 0.6], "Synthetic images changed accuracy by +10.0 points"),
        ([0.6, 0.6], [0.5, 0.5], "Synthetic images changed accuracy by -10.0 points"),
        ([0.5, 0.5], [0.51, 0.51], "no clear difference: +1.0 points"),
        ([0.5], [0.6], "with one seed there is no telling"),
        ([0.5, 0.5], None, "With real images alone the classifier reaches 50.0 %"),
    ],
)
def test_verdict_does_not_claim_more_than_the_interval(real, both, sentence):
    assert sentence in verdict(make_metrics(real, both))


def test_one_seed_and_one_arm_can_be_reported(tmp_path):
    metrics = make_metrics([0.5])
    assert accuracy_rows(metrics)[1] == ("real", "50.0", "–", "–", "50.0")
    assert write_report(tmp_path, metrics=metrics).is_file()
    with Image.open(io.BytesIO(png(accuracy_plot(metrics)))) as plot:
        assert plot.width > 600


def test_metrics_may_be_a_path_and_sections_may_be_missing(tmp_path):
    import json

    (tmp_path / "metrics.json").write_text(json.dumps(BETTER))
    write_report(tmp_path / "r", metrics=tmp_path / "metrics.json")
    text = (tmp_path / "r" / "report.md").read_text()
    assert "## Accuracy, 3 seeds" in text and "Generated images" not in text
    with pytest.raises(FastgenError, match="cannot be read for the report"):
        write_report(tmp_path / "r", contact_sheet=tmp_path / "none.png")


def test_plot_shows_every_seed_of_both_arms():
    figure = accuracy_plot(BETTER)
    dots = [
        len(points.get_offsets())
        for axes in figure.axes
        for points in axes.collections
        if hasattr(points, "get_offsets")
    ]
    assert sum(n == 3 for n in dots) == 3


def test_the_table_on_the_terminal_is_the_table_of_the_report():
    console = Console(record=True, width=120, file=io.StringIO())
    accuracy_table(BETTER, console=console)
    text = console.export_text()
    for row in accuracy_rows(BETTER):
        assert all(cell in text for cell in row)
    assert verdict(BETTER) in text.replace("\n", " ")
