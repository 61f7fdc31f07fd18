"""Diff-Mix's filter: whose probability of "with a bird on it" is among the lowest tenth is left out of training."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fastgen.cli import main
from fastgen.clip import ScoringClip
from fastgen.errors import DataError, FastgenError
from fastgen.evaluate.clip_filter import filter_images
from fastgen.files import read_jsonl
from fastgen.shards.read import open_output
from fastgen.train.data import read_synthetic
from tests.output_folder import make_row, write_output
from tests.tiny_clip import make_tiny_clip

ROWS = 21


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def out(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (ROWS, 16, 16, 3), np.uint8)
    rows = [
        make_row(i, class_=("red", "blue")[i % 2], image=images[i], status=2 * (i == 4)) for i in range(ROWS)
    ]
    return write_output(tmp_path / "out", rows, per_shard=8)


def expected_scores(clip, out):
    """open_clip's own softmax over the two captions, image after image."""
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip}", None)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    output = open_output(out)
    texts = ["a photo with a bird on it", "a photo without a bird on it"]
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.fromarray(output.image(int(i)))) for i in output.good])
        image, text, scale = model.eval()(pixels, tokenizer(texts))
        return (scale * image @ text.T).softmax(-1)[:, 0].numpy()


def test_scores_are_clips_probability_and_the_lowest_tenth_is_left_out(clip, out):
    said = []
    path = filter_images(out, descriptor="bird", clip=clip, say=said.append)
    header, *lines = read_jsonl(path)
    want = expected_scores(clip, out)
    scores = np.array([line["score"] for line in lines])
    np.testing.assert_allclose(scores, want, atol=1e-5)
    assert np.ptp(want) > 0.01, "scores that are all alike would test nothing"
    dropped = [line["id"] for line in lines if not line["keep"]]
    ids = [f"row-{i}" for i in range(ROWS) if i != 4]
    assert [line["id"] for line in lines] == ids, "failed rows have no image"
    assert dropped == [ids[i] for i in sorted(np.argsort(want)[:2])], "2 of 20"
    assert header["texts"] == ["a photo with a bird on it", "a photo without a bird on it"]
    assert (header["images"], header["kept"], header["percentile"]) == (20, 18, 10)
    assert header["model_sha256"] == ScoringClip.load(clip).sha256
    assert "18 of 20 images are kept" in said[0]


def test_training_leaves_them_out_and_says_how_many(clip, out):
    path = filter_images(out, descriptor="bird", clip=clip, percentile=50, say=lambda line: None)
    kept = {line["id"] for line in list(read_jsonl(path))[1:] if line["keep"]}
    images, counts = read_synthetic(out, ["red"], keep=path)
    assert {images.output[int(row)]["id"] for row in images.rows} == {f"row-{i}" for i in range(0, ROWS, 2)} & kept
    everything, _ = read_synthetic(out, ["red"])
    assert counts["filtered_out"] == len(everything) - len(images) > 0
    assert images.sha256 != everything.sha256, "so that trials on other images are other trials"


def test_a_selection_that_keeps_nothing_is_wrong_data(out, tmp_path):
    lines = "".join(f'{{"id": "row-{i}", "keep": false}}\n' for i in range(ROWS))
    (tmp_path / "none.jsonl").write_text('{"fastgen_filter": 1}\n' + lines)
    with pytest.raises(DataError, match="keeps none of the 20 images"):
        read_synthetic(out, ["red", "blue"], keep=tmp_path / "none.jsonl")


def test_the_article_fits_the_noun_and_percentile_0_keeps_all(clip, out, tmp_path):
    path = filter_images(out, descriptor="aircraft", clip=clip, percentile=0, to=tmp_path / "f", say=lambda line: None)
    header, *lines = read_jsonl(path)
    assert header["texts"][0] == "a photo with an aircraft on it" and all(line["keep"] for line in lines)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"percentile": 100}, "percentile: got 100, allowed: 0 .* to below 100"),
        ({"percentile": -1}, "percentile: got -1"),
        ({"descriptor": " "}, "descriptor: got none, allowed: a noun"),
    ],
)
def test_bad_arguments_are_refused(out, changes, message):
    with pytest.raises(FastgenError, match=message):
        filter_images(out, **{"descriptor": "bird", **changes})


def test_the_command_uses_the_embedded_clip(out):
    result = CliRunner().invoke(main, ["filter", str(out), "--descriptor", "pet"], catch_exceptions=False)
    assert result.exit_code == 0 and result.output.splitlines()[-1] == str(out / "filter.jsonl")
    assert next(read_jsonl(out / "filter.jsonl"))["model"] == "mini"
