"""Every kind of export is read back by the program it is for, and holds the shards' images to the last bit."""

import gc
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from torchvision.datasets import ImageFolder

from fastgen.cli import main
from fastgen.errors import FastgenError, Interrupted, OutputError
from fastgen.export import export as export_module
from fastgen.export.export import export
from fastgen.export.image_folder import class_folders
from fastgen.shards.read import open_output
from tests.output_folder import make_row, write_output
from tests.shards.shard_samples import image_of, make_output

QUIET = {"say": lambda line: None}


@pytest.fixture
def out(tmp_path) -> Path:
    """Eleven rows of three ranks."""
    return make_output(tmp_path / "out", rows=11, world=3, shard_size=2).out


def test_an_image_folder_is_read_by_torchvision(out, tmp_path):
    assert export(out, tmp_path / "png", to="image-folder", **QUIET) == tmp_path / "png"
    folder = ImageFolder(tmp_path / "png")
    assert folder.classes == ["cat", "dog"] and len(folder) == 11
    for path, label in folder.samples:
        index = int(Path(path).stem)
        assert label == index % 2 and (np.asarray(Image.open(path)) == image_of(index)).all()


def test_metadata_says_what_the_shards_say(out, tmp_path):
    export(out, tmp_path / "png", to="image-folder", **QUIET)
    lines = [json.loads(line) for line in (tmp_path / "png" / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [line["file_name"] for line in lines[:2]] == ["cat/00000000.png", "dog/00000001.png"]
    output = open_output(out)
    for number, line in enumerate(lines):
        assert json.loads(line["meta"]) == output[number] and line["prompt"] == output[number]["prompt"]
        assert line["lambda"] == 0.25 and line["lambda_sigma"] is None and line["status"] == "good"
        assert line["seed"] == str(2**64 - 1 - number) and line["plan_index"] == number


@pytest.mark.slow  # the package takes seconds to load
def test_huggingface_reads_the_image_folder_and_the_parquet(out, tmp_path):
    datasets = pytest.importorskip("datasets")
    export(out, tmp_path / "png", to="image-folder", **QUIET)
    export(out, tmp_path / "hub", to="huggingface", **QUIET)
    cache = str(tmp_path / "cache")
    folder = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "png"), split="train", cache_dir=cache)
    files = str(tmp_path / "hub" / "data" / "*.parquet")
    parquet = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    whole = datasets.load_dataset(str(tmp_path / "hub"), split="train", cache_dir=cache)
    assert len(folder) == len(parquet) == len(whole) == 11
    assert parquet.features["label"].names == whole.features["label"].names == ["cat", "dog"]
    for row in (*folder, *parquet, *whole):
        index = row["plan_index"]
        assert (np.asarray(row["image"]) == image_of(index)).all() and row["label"] == index % 2
        assert int(row["seed"]) == 2**64 - 1 - index and row["lambda_sigma"] is None


@pytest.mark.slow
def test_parquet_files_are_bounded_and_numbered(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    from pyarrow import parquet as parquet_files

    from fastgen.export import parquet

    monkeypatch.setattr(parquet, "GROUP", 3)
    monkeypatch.setattr(export_module, "write_parquet", lambda *words, most: parquet.write_parquet(*words, most=5000))
    make_output(tmp_path / "out", rows=23)
    export(tmp_path / "out", tmp_path / "hub", to="huggingface", **QUIET)
    files = sorted((tmp_path / "hub" / "data").iterdir())
    assert [file.name for file in files] == [f"train-{i:05d}-of-00004.parquet" for i in range(4)]
    assert sum(parquet_files.ParquetFile(file).metadata.num_rows for file in files) == 23


def test_without_datasets_the_error_says_what_to_install(out, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FastgenError, match="needs the package datasets .* pip install datasets. .*image-folder"):
        export(out, tmp_path / "hub", to="huggingface", **QUIET)
    assert not (tmp_path / "hub").exists()


def samples_of(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key -> extension -> bytes; members of a sample must follow one another."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        before = None
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                assert key == before or key not in found
                before = key
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    return found


def test_tar_files_hold_png_cls_and_json(out, tmp_path):
    export(out, tmp_path / "tar", to="webdataset", **QUIET)
    samples = samples_of(tmp_path / "tar")
    assert list(samples) == [f"{i:08d}" for i in range(11)]
    for index, sample in enumerate(samples.values()):
        assert set(sample) == {"png", "cls", "json"} and int(sample["cls"]) == index % 2
        assert (np.asarray(Image.open(io.BytesIO(sample["png"]))) == image_of(index)).all()
        assert json.loads(sample["json"])["seed"] == 2**64 - 1 - index
    assert json.loads((tmp_path / "tar" / "classes.json").read_text()) == ["cat", "dog"]
    export(out, tmp_path / "again", to="webdataset", **QUIET)
    assert (tmp_path / "again" / "000000.tar").read_bytes() == (tmp_path / "tar" / "000000.tar").read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_reads_the_tar_files(out, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    export(out, tmp_path / "tar", to="webdataset", **QUIET)
    files = [str(path) for path in sorted((tmp_path / "tar").glob("*.tar"))]
    found = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json"))
    assert len(found) == 11
    for index, (image, label, fields) in enumerate(found):
        assert (np.asarray(image) == image_of(index)).all() and label == index % 2 == fields["label"]
    gc.collect()


def test_tar_files_are_bounded(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)  # 0.2 MB each
    write_output(tmp_path / "out", [make_row(i, image=image) for i in range(12)], side=256)
    export(tmp_path / "out", tmp_path / "tar", to="webdataset", file_mib=1, **QUIET)
    files = sorted((tmp_path / "tar").glob("*.tar"))
    assert [file.name for file in files] == ["000000.tar", "000001.tar", "000002.tar"]
    assert max(file.stat().st_size for file in files) <= 1 << 20
    assert len(samples_of(tmp_path / "tar")) == 12


@pytest.mark.parametrize("to", ["image-folder", "webdataset"])
def test_failed_rows_are_left_out_or_asked_for(tmp_path, to):
    out = write_output(tmp_path / "out", [make_row(i, status=int(i == 2)) for i in range(5)])
    said: list[str] = []
    export(out, tmp_path / "good", to=to, say=said.append)
    export(out, tmp_path / "all", to=to, failed=True, **QUIET)
    assert said[0].endswith("the run is not finished; what is there is exported")
    assert said[-1].endswith("good: 4 images, 1 failed rows left out")

    def status(folder: Path) -> list[str]:
        if to == "webdataset":
            return [json.loads(sample["json"])["status"] for sample in samples_of(folder).values()]
        return [json.loads(line)["status"] for line in (folder / "metadata.jsonl").read_text().splitlines()]

    assert status(tmp_path / "good") == ["good"] * 4
    assert status(tmp_path / "all") == ["good", "good", "non_finite", "good", "good"]


def test_class_folders_are_safe_and_distinct():
    names = ["a/b", "a_b", "..", "Pug", "pug", "", "maine coon.", "größe"]
    assert class_folders(names) == ["a_b", "a_b-1", "_.", "Pug", "pug-4", "_", "maine coon", "größe"]


def test_it_is_whole_or_not_there(out, tmp_path, monkeypatch):
    class Stop(export_module.StopSignal):
        requested = True
        name = "SIGTERM"

    monkeypatch.setattr(export_module, "StopSignal", Stop)
    with pytest.raises(Interrupted, match="stopped by SIGTERM: nothing was written"):
        export(out, tmp_path / "png", to="image-folder", **QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_what_cannot_be_exported_is_refused(out, tmp_path):
    with pytest.raises(FastgenError, match="got --to zip; allowed: image-folder, webdataset, huggingface"):
        export(out, tmp_path / "x", to="zip", **QUIET)
    with pytest.raises(FastgenError, match="got --file-mib 0; allowed: 1 or more"):
        export(out, tmp_path / "x", to="webdataset", file_mib=0, **QUIET)
    with pytest.raises(OutputError, match="already exists"):
        export(out, out, to="webdataset", **QUIET)
    failed = write_output(tmp_path / "failed", [make_row(0, status=1)])
    with pytest.raises(FastgenError, match="none of its 1 rows is good.*--failed"):
        export(failed, tmp_path / "x", to="webdataset", **QUIET)


def test_the_commands(out, tmp_path):
    words = ["export", str(out), str(tmp_path / "png"), "--to", "image-folder"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0 and done.output.splitlines()[-1] == str(tmp_path / "png")
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 2 and "already exists; remove it or choose another name" in done.output
    done = CliRunner().invoke(main, ["merge", str(out), "--to", str(tmp_path / "all.h5")], catch_exceptions=False)
    assert done.exit_code == 0 and (tmp_path / "all.h5").is_file()
