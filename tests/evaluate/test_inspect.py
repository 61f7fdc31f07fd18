"""`inspect` shows good rows only, counts the others, and writes pictures that open."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fastgen.errors import DataError, FastgenError, OutputError, ReferenceImageError
from fastgen.evaluate.histogram import histograms, png
from fastgen.evaluate.inspect import choose_rows, inspect, read_columns, summarise
from fastgen.shards.read import open_output
from tests.output_folder import make_row, write_output


def rows(count=20):
    """Every fifth row failed; red rows have lambda 0.8 and score 0.2, blue ones 0.2 and 0.9."""
    made = []
    for i in range(count):
        name, lambda_, score, bin_ = (("red", 0.8, 0.2, "low"), ("blue", 0.2, 0.9, "high"))[i % 2]
        more = {"lambda": lambda_, "score": score, "lambda_bin": bin_, "ref": {"id": f"{name}/{i}.png"}}
        image = np.full((16, 16, 3), (0, 250, 0) if i % 5 == 0 else (90, 90, 90), np.uint8)
        made.append(make_row(i, class_=name, status=int(i % 5 == 0), image=image, **more))
    return made


@pytest.fixture
def out(tmp_path):
    return write_output(tmp_path / "out", rows(), per_shard=7)


def run(out, **options):
    stream = io.StringIO()
    found = inspect(out, console=Console(file=stream, width=100), **options)
    return found, stream.getvalue()


def test_pictures_are_written_and_open(out):
    found, _ = run(out, rows=6, load_reference=lambda ref: Image.new("RGB", (40, 40), "blue"))
    assert found.contact_sheet == out / "inspect" / "contact_sheet.png"
    with Image.open(found.contact_sheet) as sheet:
        assert sheet.width > 1000 and sheet.height > 3 * 160
    with Image.open(found.histograms) as figure:
        assert figure.width > 1500 and figure.height > 400


def test_failed_rows_are_counted_but_never_shown(out):
    found, text = run(out, rows=100, to=out / "elsewhere")
    assert found.statuses["good"] == 16 and found.statuses["non_finite"] == 4
    with Image.open(out / "elsewhere" / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet).reshape(-1, 3)
    assert not (pixels == (0, 250, 0)).all(1).any()
    assert "16 of 16" not in text
    assert "20 rows: good 16, non_finite 4" in text


def test_table_has_counts_and_means_per_class(out):
    found, text = run(out)
    blue, red = found.classes
    assert (blue.name, blue.good, blue.failed) == ("blue", 8, 2)
    assert (red.mean_lambda, red.mean_score) == (pytest.approx(0.8), pytest.approx(0.2))
    assert "blue" in text and "0.200" in text and "mean λ" in text


def test_columns_keep_rows_together(out):
    columns = read_columns(open_output(out))
    assert set(columns.bin[columns.label == 1]) == {"low"}
    np.testing.assert_allclose(columns.lambda_[columns.bin == "high"], 0.2)


def test_rows_without_lambda_and_score_have_no_mean(tmp_path):
    output = open_output(write_output(tmp_path, [make_row(0)]))
    red = summarise(read_columns(output), output.classes)[1]
    assert np.isnan(red.mean_lambda) and np.isnan(red.mean_score)
    assert red.good == 1
    _, text = run(tmp_path)
    assert "·" in text


def test_rows_are_spread_over_classes_and_repeat(tmp_path):
    many = [make_row(i, class_="red" if i < 50 else "blue") for i in range(54)]
    output = open_output(write_output(tmp_path, many))
    chosen = choose_rows(output, 8, seed=0)
    assert np.bincount(output.labels[chosen]).tolist() == [4, 4]
    assert chosen == choose_rows(output, 8, seed=0) != choose_rows(output, 8, seed=1)
    assert len(choose_rows(output, 1000, seed=0)) == 54


def test_loader_gets_the_reference_and_may_fail(out):
    asked = []

    def load(ref):
        asked.append(ref.id)
        raise ReferenceImageError("gone")

    run(out, rows=2, load_reference=load)
    assert sorted(name.split("/")[0] for name in asked) == ["blue", "red"]


def test_donors_are_checked_for_independence(tmp_path, out):
    assert "class and context" not in run(out)[1]
    for kind, verdict in (("same", "DEPEND"), ("mixed", "are independent")):
        made = []
        for i in range(80):
            place = str(i % 2 if kind == "same" else i // 2 % 2)
            attrs = {"background": place, "pose": "sitting", "donor_id": place, "donor_label": int(place)}
            image = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
            made.append(make_row(i, class_=("red", "blue")[i % 2], attrs=attrs, image=image))
        text = " ".join(run(write_output(tmp_path / kind, made))[1].split())
        assert f"class and context {verdict}" in text and f"class and class of the donor {verdict}" in text


def test_nothing_good_is_wrong_data_after_the_table(tmp_path):
    write_output(tmp_path, [make_row(0, status=2)])
    stream = io.StringIO()
    with pytest.raises(DataError, match="none of its 1 rows is good"):
        inspect(tmp_path, console=Console(file=stream, width=100))
    assert "flat 1" in stream.getvalue()


def test_bad_input_is_named(out, tmp_path):
    with pytest.raises(FastgenError, match="rows is 0"):
        inspect(out, rows=0)
    with pytest.raises(OutputError, match="no shards"):
        inspect(tmp_path / "nowhere")


@pytest.mark.parametrize("values", [np.full(5, np.nan), np.array([-0.2, 0.1, 0.5, 0.9, 1.4])])
def test_histograms_take_missing_and_unusual_numbers(values):
    figure = histograms(values, values, np.array(["none", "low", "high", "high", "none"]))
    with Image.open(io.BytesIO(png(figure))) as image:
        assert image.width > 1500
    if np.isfinite(values).all():
        assert figure.axes[0].get_xlim() == (-0.2, 1.4)
