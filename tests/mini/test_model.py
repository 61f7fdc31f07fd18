"""The embedded model: an ordinary, small, safe folder that other libraries load, and that draws what it is told."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.clip import ScoringClip
from fastgen.engine.model_files import EMBEDDED
from fastgen.generate.batch import complete_row
from fastgen.generate.run import generate
from fastgen.petworld.attributes import NOVEL_PETS, OXFORD_PETS
from fastgen.petworld.breeds import PRETRAINING_PETS
from fastgen.petworld.captions import TEMPLATE
from fastgen.petworld.render import render, sample_scene
from fastgen.records import Ref, Row
from repro.mini.card import write_card

MODEL = EMBEDDED / "mini"
ADAPTER = "ip-adapter_mini.safetensors"
BREEDS = OXFORD_PETS[::3]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from fastgen.engine.build import build
    from fastgen.engine.load import load_engine

    out = tmp_path_factory.mktemp("engines") / "mini"
    return load_engine(build("mini", out=out, say=lambda line: None))


@pytest.fixture(scope="module")
def clip():
    return ScoringClip.load(MODEL / "clip")


def photos(breeds, *, realism=(0.0, 0.15)):
    scenes = [sample_scene(77, i, breeds=(breed,), realism=realism) for i, breed in enumerate(breeds)]
    return [Image.fromarray(render(scene)) for scene in scenes]


def draw(engine, rows, pictures=()):
    """Images of Row arguments, at the model's own settings."""
    made = [complete_row(Row(id=str(i), class_="pet", **row), engine.spec, {}) for i, row in enumerate(rows)]
    samples = generate(made, engine, lambda ref: pictures[int(ref.id)])
    images = {sample.row.id: sample.image for sample in samples}
    return [Image.fromarray(images[str(i)]) for i in range(len(rows))]


def test_is_small_safe_and_says_what_it_can_do(tmp_path):
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24_000_000
    assert {path.suffix for path in files} == {".json", ".txt", ".safetensors", ".md"}
    card = (MODEL / "README.md").read_text()
    write_card(MODEL, json.loads((MODEL / "evaluation.json").read_text()), to=tmp_path)
    assert card == (tmp_path / "README.md").read_text()


def test_diffusers_loads_it_and_draws_the_same_picture(engine):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    pipe.load_ip_adapter(str(MODEL), subfolder="ip_adapter", weight_name=ADAPTER)
    pipe.set_ip_adapter_scale(0.6)
    pipe.set_progress_bar_config(disable=True)
    picture = photos(["Siamese"])[0]
    prompt = "a photo of a Siamese lying on the sofa"
    row = {"prompt": prompt, "seed": 5, "lambda_": 0.6, "ref": Ref(id="0"), "steps": 4, "guidance_scale": 3.0}
    ours = np.asarray(draw(engine, [row], [picture])[0]).astype(int)
    theirs = pipe(
        prompt,
        ip_adapter_image=picture,
        num_inference_steps=4,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.abs(ours - np.asarray(theirs)).max() <= 1


def test_timm_loads_the_backbone_which_never_saw_the_37_or_the_novel_breeds():
    import timm

    model = timm.create_model(f"local-dir:{MODEL / 'resnet'}", pretrained=True)
    assert model.num_classes == len(PRETRAINING_PETS)
    assert not set(PRETRAINING_PETS) & {*OXFORD_PETS, *NOVEL_PETS}


def test_scoring_clip_knows_the_37_and_not_the_novel_breeds(clip):
    for breeds, low, high in ((OXFORD_PETS, 0.6, 1.0), (NOVEL_PETS, 0.0, 0.3)):
        texts = clip.embed_texts([TEMPLATE.format(**{"class": breed}) for breed in breeds])
        logits = clip.scale * clip.embed_images(photos(breeds)) @ texts.T
        probability = np.exp(logits - logits.max(1, keepdims=True))
        score = np.diag(probability / probability.sum(1, keepdims=True)).mean()
        assert low <= score <= high


def test_draws_the_breed_that_the_prompt_names(engine, clip):
    images = draw(engine, [{"prompt": f"a photo of a {b}", "seed": i} for i, b in enumerate(BREEDS)])
    text = clip.embed_texts([TEMPLATE.format(**{"class": b}) for b in OXFORD_PETS])
    ranks = (-clip.embed_images(images) @ text.T).argsort(1)
    hits = [OXFORD_PETS.index(breed) in ranks[i, :5] for i, breed in enumerate(BREEDS)]
    assert np.mean(hits) >= 0.7


def test_comes_nearer_to_the_reference_as_lambda_grows(engine, clip):
    pictures = photos(BREEDS)
    target = clip.embed_images(pictures)
    similarity = []
    for weight in (0.0, 0.5, 1.0):
        rows = [
            {"prompt": "a photo of a pet", "seed": i, "lambda_": weight, "ref": Ref(id=str(i))}
            for i in range(len(BREEDS))
        ]
        similarity.append(float((clip.embed_images(draw(engine, rows, pictures)) * target).sum(1).mean()))
    assert similarity[0] + 0.05 < similarity[1] < similarity[2]
