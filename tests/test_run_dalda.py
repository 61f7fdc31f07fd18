"""DALDA's baselines and profiles through `fastgen run`: one bank, one run each."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastgen.bank.img2img import write_da_fusion_bank, write_real_guidance_bank
from fastgen.bank.template import write_template_bank
from fastgen.class_words import word_of
from fastgen.cli import main
from fastgen.errors import BankError, FastgenError, OutputError
from fastgen.production.run import plan, run
from fastgen.shards.read import open_output
from fastgen.shards.verify import verify
from tests.fake_engine import FakeEngine

CLASSES = ["Beagle", "Siamese"]


def write_refs(folder, count=2):
    """Wide pictures of noise, `count` for each class."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng([label, index]).integers(0, 256, (24, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def scored(monkeypatch):
    """Scores without a CLIP; the list has the options it was made with."""
    made = []

    class Scorer:
        def __init__(self, clip, classes, **options):
            made.append(options)

        def __call__(self, reference):
            return 0.9 if reference.class_ == "Beagle" else 0.12345678

    monkeypatch.setattr("fastgen.clip.ScoringClip.load", lambda name: None)
    monkeypatch.setattr("fastgen.plan.score.ClipScorer", Scorer)
    return made


def test_real_guidance_and_da_fusion_on_a_real_engine(tiny_model, tmp_path):
    import torch
    from safetensors.torch import save_file

    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine
    from tests.tiny_model import TEXT_WIDTH

    words = tmp_path / "words"
    words.mkdir()
    for index, name in enumerate(CLASSES):
        vector = torch.randn(1, TEXT_WIDTH, generator=torch.Generator().manual_seed(index))
        save_file({word_of(name): vector}, words / f"{word_of(name)[1:-1]}.safetensors")
    options = {"backend": "torch", "batch": 8, "out": tmp_path / "engine", "say": lambda line: None}
    engine = load_engine(build(tiny_model, embedding=[str(words)], **options))
    assert engine.spec.words == ("<beagle>", "<siamese>")
    refs = write_refs(tmp_path / "refs")
    for write in (write_real_guidance_bank, write_da_fusion_bank):
        bank = write(CLASSES, tmp_path / "bank.jsonl", shots=2, images_per_ref=2, defaults={"steps": 4})
        out = tmp_path / write.__name__
        report = run(bank, engine=engine, refs=refs, out=out, quiet=True)
        assert (report.rows, report.failed, verify(out)) == (8, 0, [])
        output = open_output(out)
        assert len(set(output.column("image_sha256"))) == 8, "every image has its own seed"
        assert {tuple(row["ref"]["role"]) for row in output} == {("init",)}
    rows = list(output)
    assert {row["strength"] for row in rows} <= {1.0, 0.75, 0.5, 0.25}
    assert {row["prompt"] for row in rows} == {"a photo of a <beagle>", "a photo of a <siamese>"}
    plain = FakeEngine()
    with pytest.raises(BankError, match=r"adapters.*<beagle>.*fastgen build --embedding '<beagle>=PATH'"):
        list(plan(bank, engine=plain, refs=refs))


def test_a_profile_at_the_run_is_in_the_plan_and_is_resumed(tmp_path, scored):
    refs = write_refs(tmp_path / "refs")
    bank = write_template_bank(CLASSES, tmp_path / "base.jsonl", profile="dalda-paper", per_class=6)
    run(bank, engine=FakeEngine(), refs=refs, shots=2, out=tmp_path / "paper", shard_size=9, quiet=True)
    out = tmp_path / "official"
    options = {"engine": FakeEngine(), "refs": refs, "shots": 2, "out": out, "shard_size": 9, "quiet": True}
    run(bank, **options, profile="dalda-official")
    assert scored == [
        {"template": "a photo of a {class}", "kind": "softmax", "fit": "center_crop", "decimals": None},
        {"template": "a photo of a {class}", "kind": "softmax", "fit": "center_crop", "decimals": 5},
    ]
    (out / "shards" / "00001-r000.h5").unlink()
    assert run(bank, **options, profile="dalda-official").made == 9 and verify(out) == []
    record = json.loads((out / "plan.json").read_text())
    assert record["arguments"]["profile"] == "dalda-official"
    assert record["header"]["defaults"]["ags"]["sampler"] == "clipnorm"
    assert "--profile dalda-official" in json.loads((out / "run.json").read_text())["command"]
    assert "profile" not in json.loads((tmp_path / "paper" / "plan.json").read_text())["arguments"]
    with pytest.raises(OutputError, match="profile"):
        run(bank, **options)
    for folder, sampler in ((out, "clipnorm"), (tmp_path / "paper", "truncnorm")):
        assert {row["lambda_sampler"] for row in open_output(folder)} == {sampler}
    with pytest.raises(FastgenError, match="profile: got 'dalda'; allowed: dalda-paper, dalda-official"):
        run(bank, **options, profile="dalda")


def test_score_mu_sigma_bin_and_lambda_are_stored_each_under_its_own_name(tmp_path, scored):
    """Card, mistake 8, and row 27: the exact numbers, not what the UNet computes with, nor mu as a threshold."""
    refs = write_refs(tmp_path / "refs")
    bank = write_template_bank(CLASSES, tmp_path / "base.jsonl", profile="dalda-official", per_class=4)
    out = tmp_path / "out"
    run(bank, engine=FakeEngine(), refs=refs, shots=2, out=out, quiet=True)
    planned = [json.loads(line) for line in (out / "plan.jsonl").read_text().splitlines()]
    with h5py.File(out / "shards" / "00000-r000.h5") as file:
        for column, field in (
            ("lambda", "lambda"),
            ("clip_score", "score"),
            ("lambda_mu", "lambda_mu"),
            ("lambda_sigma", "lambda_sigma"),
        ):
            assert file[column][()].tolist() == [row[field] for row in planned], column
        drawn = file["lambda"][()]
        meta = [json.loads(text) for text in file["meta"].asstr()]
    assert drawn.dtype == np.float64 and (drawn != drawn.astype(np.float16)).mean() > 0.5
    assert {(row["class"], row["lambda_bin"], round(row["lambda_mu"], 6)) for row in meta} == {
        ("Beagle", "high", 0.13),
        ("Siamese", "low", round(0.7 + 0.2 * (1 - 0.12345678), 6)),
    }
    assert {row["lambda_sigma"] for row in meta} == {0.1}


def test_an_image_comes_back_at_the_size_of_its_source(tmp_path):
    refs = write_refs(tmp_path / "refs", 1)
    bank = write_real_guidance_bank(CLASSES, tmp_path / "bank.jsonl", images_per_ref=1, defaults={"steps": 2})
    run(bank, engine=FakeEngine(), refs=refs, out=tmp_path / "out", quiet=True)
    output = open_output(tmp_path / "out")
    assert output[0]["ref"]["size"] == [60, 24] and output.image(0).shape == (32, 32, 3)
    expected = np.asarray(Image.fromarray(output.image(0)).resize((60, 24), Image.Resampling.BILINEAR))
    assert output.source_image(0).shape == (24, 60, 3) and np.array_equal(output.source_image(0), expected)
    rows = [{"id": "a", "class": "Beagle", "prompt": "x", "lambda": None}]
    lines = [{"fastgen_bank": 1, "name": "t", "classes": CLASSES}, *rows]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path / "plain.jsonl", engine=FakeEngine(), out=tmp_path / "plain", quiet=True)
    with pytest.raises(OutputError, match="row 0 has no ref.size"):
        open_output(tmp_path / "plain").source_image(0)


def test_a_reference_may_be_cut_instead_of_squashed(tmp_path):
    refs = write_refs(tmp_path / "refs", 1)
    images = {}
    for fit in ("squash", "center_crop"):
        bank = write_real_guidance_bank(
            CLASSES, tmp_path / f"{fit}.jsonl", images_per_ref=1, defaults={"ref_fit": fit, "steps": 2}
        )
        run(bank, engine=FakeEngine(), refs=refs, out=tmp_path / fit, quiet=True)
        images[fit] = open_output(tmp_path / fit).image(0).astype(int)
    for name in CLASSES:
        path = refs / name / "0.png"
        Image.open(path).crop((18, 0, 42, 24)).save(path)
    run(tmp_path / "squash.jsonl", engine=FakeEngine(), refs=refs, out=tmp_path / "cut", quiet=True)
    by_hand = open_output(tmp_path / "cut").image(0).astype(int)
    off = {fit: np.abs(image - by_hand).mean() for fit, image in images.items()}
    assert off["center_crop"] < 0.05 * off["squash"], "Pillow looks one pixel beyond the cut"


def test_the_commands_write_the_banks(tmp_path):
    def fastgen(*words):
        result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
        return result.exit_code, result.output

    names, out = tmp_path / "names.txt", tmp_path / "bank.jsonl"
    names.write_text("Beagle\nMaine Coon\n")

    def first_lines():
        return [json.loads(line) for line in out.read_text().splitlines()[:2]]

    shared = ("--classes", names, "--out", out)
    assert fastgen("bank", "real-guidance", *shared, "--strength", "by_shots", "--shots", 4)[0] == 0
    assert first_lines()[0]["defaults"]["strength"] == 0.35
    assert fastgen("bank", "da-fusion", *shared, "--refs", "petworld", "--default", "steps=25")[0] == 0
    header, row = first_lines()
    assert (header["defaults"]["steps"], header["defaults"]["refs"], row["shot"]) == (25, "petworld", 0)
    options = ("--profile", "dalda-official", "--default", "policy=uniform", "--per-class", 10)
    assert fastgen("bank", "template", *shared, *options)[0] == 0
    assert first_lines()[0]["defaults"]["policy"] == "uniform"
    assert out.read_text().splitlines()[-1].count("a photo of a Maine_Coon") == 1
    dealt = tmp_path / "dealt.jsonl"
    assert fastgen("bank", "deal", out, "--out", dealt, "--shots", 2, "--images-per-ref", 1)[0] == 0
    assert len(dealt.read_text().splitlines()) == 5
    code, output = fastgen("bank", "template", *shared, "--default", "steps")
    assert code == 2 and output.startswith("fastgen: default 'steps': write NAME=VALUE")
    code, output = fastgen("bank", "template", *shared, "--default", "ags.sampler=x")
    assert code == 2 and "field 'defaults.ags.sampler': got \"x\", allowed: \"truncnorm\" or \"clipnorm\"" in output
