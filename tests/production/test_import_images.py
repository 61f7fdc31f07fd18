"""Images of another program as an output folder: verified, trained from, and traceable to their files."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastgen.cli import main
from fastgen.errors import FastgenError, OutputError
from fastgen.evaluate.inspect import inspect
from fastgen.files import sha256_file
from fastgen.production.import_images import import_images
from fastgen.shards.read import open_output
from fastgen.shards.verify import verify


@pytest.fixture
def made(tmp_path):
    """DataDream's layout: a folder of PNG per class; one image is black, as from a safety checker."""
    for label, name in enumerate(("Boeing_717", "A380")):
        (tmp_path / "made" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.random.default_rng(3 * label + index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "made" / name / f"{index}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "made" / "A380" / "3.png")
    return tmp_path / "made"


def test_an_import_is_an_output_folder(made, tmp_path):
    out = import_images(
        made, tmp_path / "out", classes=["Boeing 717", "A380", "Tornado"], method="datadream", shard_size=4,
        say=lambda line: None,
    )  # fmt: skip
    assert verify(out) == []
    output = open_output(out)
    assert output.classes == ("Boeing 717", "A380", "Tornado") and output.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    for number, row in enumerate(output):
        file = made / row["tags"]["file"]
        assert (output.image(number) == np.asarray(Image.open(file))).all()
        assert row["tags"]["file_sha256"] == sha256_file(file)
        assert (row["method"], row["prompt"]) == ("datadream", f"a photo of a {row['class']}")
    assert output.status.tolist() == [0, 0, 0, 0, 0, 0, 2], "the black image is flat"
    report = json.loads((out / "run.json").read_text())
    assert report["command"].startswith("fastgen import ") and report["counts"]["good"] == 6
    assert inspect(out).contact_sheet.is_file()


def test_a_second_import_does_nothing_and_another_one_is_refused(made, tmp_path):
    lines = []
    out = import_images(made, tmp_path / "out", say=lines.append)
    before = (out / "run.json").stat().st_mtime_ns
    import_images(made, out, say=lines.append)
    assert "there already" in lines[-1] and (out / "run.json").stat().st_mtime_ns == before
    (made / "A380" / "0.png").unlink()
    with pytest.raises(OutputError, match="was started with something else"):
        import_images(made, out)


def test_images_of_several_sizes_need_a_size(made, tmp_path):
    Image.new("RGB", (40, 20), "red").save(made / "A380" / "big.png")
    with pytest.raises(FastgenError, match="0.png has 16 x 16 pixels and A380/big.png 40 x 20; allowed: .*--size"):
        import_images(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = import_images(made, tmp_path / "out", size=24, say=lambda line: None)
    assert verify(out) == [] and open_output(out).image(0).shape == (24, 24, 3)


def test_what_is_no_folder_of_images_is_one_error(made, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "A380").mkdir(parents=True)
    for folder, message in (("nowhere", "no such folder"), ("empty", "holds no folders"), ("hollow", "hold no images")):
        with pytest.raises(FastgenError, match=message):
            import_images(tmp_path / folder, tmp_path / "out")
    for wrong in ({"template": "a photo"}, {"size": 0}, {"shard_size": 0}):
        with pytest.raises(FastgenError, match="allowed"):
            import_images(made, tmp_path / "out", **wrong)
    (made / "A380" / "broken.png").write_bytes(b"x")
    with pytest.raises(FastgenError, match="broken.png"):
        import_images(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(made, tmp_path):
    result = CliRunner().invoke(main, ["import", str(made), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0 and verify(tmp_path / "out") == []
