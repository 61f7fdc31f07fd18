"""Every row of a batch is the row alone, prompts and references are encoded once, failures are rows."""

import numpy as np
import pytest
import torch

from fastgen.errors import EngineError
from fastgen.generate.batch import batches, complete_row, group_of
from fastgen.generate.encode import Cache, Encoder
from fastgen.generate.run import generate, to_uint8
from fastgen.generate.schedulers import SCHEDULERS
from fastgen.records import Row
from tests.fake_engine import FakeEngine, reference


def make_row(index, engine, **fields):
    obj = {
        "id": f"r{index}",
        "class": "cat",
        "prompt": f"a photo of a cat, number {index % 5}",
        "seed": 1000 + index,
        "ref": {"id": f"ref-{index % 3}", "role": ["ip", "init"]},
        "lambda": 0.1 * (index % 10),
        "guidance_scale": 1.5 + index % 4,
        **fields,
    }
    return complete_row(Row.from_json(obj, None), engine.spec, engine.scheduler_config)


def mixed_rows(engine, count=23):
    """Rows of several groups, some without image prompt, guidance or negative prompt."""
    rows = []
    for index in range(count):
        fields = {}
        if index % 4 == 1:
            fields = {"lambda": None, "negative_prompt": "lowres"}
        if index % 5 == 2:
            fields = {"guidance_scale": 1.0}
        if index % 6 == 3:
            fields = {"scheduler": "dpmsolver++", "steps": 3}
        if index % 7 == 4:
            fields = {"mode": "img2img", "strength": 0.5}
        if index % 7 == 5:
            fields = {"prompt_late": "a dog", "switch": 0.5}
        if index % 7 == 6:
            refs = [f"ref-{index % 2}", f"ref-{2 + index % 3}"]
            fields = {"mode": "latent", "init": {"kind": "circle", "refs": refs, "inv_steps": 3 + index % 2}}
        if index % 8 == 7:
            fields |= {"guidance_interval": [0.25, 0.75]}
        rows.append(make_row(index, engine, **fields))
    return rows


def by_id(samples):
    return {sample.row.id: sample for sample in samples}


def test_every_row_of_a_batch_is_the_row_alone():
    engine = FakeEngine(batch=8)
    rows = mixed_rows(engine)
    together = by_id(generate(rows, engine, reference))
    assert sorted(together) == sorted(row.id for row in rows)
    for row in rows:
        alone = list(generate([row], FakeEngine(batch=1), reference))
        assert len(alone) == 1 and alone[0].status == together[row.id].status == 0
        assert (alone[0].image == together[row.id].image).all(), row.id


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_and_order_do_not_change_images(batch):
    engine = FakeEngine()
    rows = mixed_rows(engine)
    expected = by_id(generate(rows, engine, reference))
    found = by_id(generate(rows[::-1], engine, reference, batch=batch))
    assert all((found[name].image == expected[name].image).all() for name in expected)


def test_the_conditions_of_a_row_matter():
    engine = FakeEngine()
    base = make_row(1, engine, **{"lambda": 0.5})
    image = next(generate([base], engine, reference)).image
    changes = [
        {"lambda": 0.9},
        {"lambda": None},
        {"guidance_scale": 9.0},
        {"guidance_scale": 1.0},
        {"guidance_interval": [0.5, 1.0]},
        {"prompt": "something else"},
        {"negative_prompt": "lowres"},
        {"seed": 5},
        {"ref": {"id": "ref-9"}},
        {"steps": 7},
        {"scheduler": "euler"},
        {"prompt_late": "a dog", "switch": 0.25},
        {"mode": "img2img", "strength": 0.8},
    ]
    for change in changes:
        other = next(generate([make_row(1, engine, **{"lambda": 0.5, **change})], engine, reference)).image
        assert (other != image).any(), change


def test_lambda_zero_is_no_image_prompt():
    engine = FakeEngine()
    rows = [make_row(1, engine, **{"lambda": value}) for value in (0.0, None)]
    zero, none = (next(generate([row], engine, reference)).image for row in rows)
    assert (zero == none).all()


def latent_row(index, engine, refs=("ref-1", "ref-2"), **more):
    init = {"kind": "circle", "refs": list(refs), "inv_steps": 5, **more}
    fields = {"lambda": None, "ref": None, "guidance_scale": 2.0}
    return make_row(index, engine, mode="latent", init=init, prompt="a cat", **fields)


def test_inverted_references_are_shared_and_a_missing_one_fails_its_rows_only():
    engine = FakeEngine(batch=4)
    rows = [latent_row(i, engine) for i in range(6)]
    rows += [latent_row(6, engine, refs=("bad-1", "ref-1")), latent_row(7, engine, refs=("ref-1", "bad-2"))]
    samples = by_id(generate(rows, engine, reference))
    assert [samples[f"r{i}"].status for i in range(8)] == [0] * 6 + [3, 3]
    assert "bad-1" in samples["r6"].reason and "bad-2" in samples["r7"].reason
    assert sum(size for kind, size in engine.calls if kind == "moments") <= 4
    images = [samples[f"r{i}"].image for i in range(6)]
    assert all((a != b).any() for a, b in zip(images, images[1:], strict=False))  # each draws its own point


def test_the_point_of_a_latent_row_is_its_own_or_drawn_from_its_seed():
    engine = FakeEngine()
    given = [latent_row(i, engine, alpha=-0.5) for i in range(2)]  # with different seeds
    first, second = (next(generate([row], engine, reference)).image for row in given)
    assert (first == second).all()
    drawn = latent_row(3, engine)
    again = [next(generate([drawn], engine, reference)).image for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_the_class_of_a_scheduler_stands_for_its_short_name():
    engine = FakeEngine()
    assert make_row(1, engine, scheduler="DPMSolverMultistepScheduler").scheduler == "dpmsolver++"
    assert make_row(1, engine, scheduler="dpmsolver++_karras").scheduler == "dpmsolver++_karras"


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_scheduler_is_row_independent(name, steps):
    engine = FakeEngine()
    rows = [make_row(i, engine, scheduler=name, steps=steps) for i in range(5)]
    together = by_id(generate(rows, engine, reference, batch=5))
    for row in rows:
        alone = next(generate([row], engine, reference))
        assert alone.status == 0 and (alone.image == together[row.id].image).all()


def test_prompts_and_references_are_encoded_once():
    engine = FakeEngine(batch=8)
    encoder = Encoder(engine, reference)
    rows = [make_row(i, engine) for i in range(40)]
    assert len(list(generate(rows[:20], engine, encoder))) == 20
    assert len(list(generate(rows[20:], engine, encoder))) == 20
    assert encoder.counts == {
        "prompts": 6,
        "references": 3,
        "prompts_cut": 0,
    }  # five prompts and the empty one


def test_long_prompts_are_counted():
    engine = FakeEngine()
    encoder = Encoder(engine, reference)
    prompts = ["x" * 100, "x" * 76, "x" * 75, "x"]  # two more tokens each: begin and end
    list(generate([make_row(i, engine, prompt=prompt) for i, prompt in enumerate(prompts)], engine, encoder))
    assert encoder.counts["prompts_cut"] == 2


def test_a_cache_forgets_the_least_recently_used():
    calls = []

    def encode(items):
        calls.append(list(items))
        return torch.tensor([[float(item)] * 10 for item in items])

    cache = Cache(encode, size=2, limit=3 * 40)
    assert cache.rows([1, 2, 1])[:, 0].tolist() == [1, 2, 1]
    cache.rows([3])
    cache.rows([1])
    cache.rows([4])  # 2 goes
    assert 1 in cache and 3 in cache and 4 in cache and 2 not in cache
    assert cache.rows([5, 6, 7, 8, 2])[:, 0].tolist() == [5, 6, 7, 8, 2]  # more than it can keep
    assert calls == [[1, 2], [3], [4], [5, 6], [7, 8], [2]]


def test_a_small_cache_gives_the_same_images():
    engine = FakeEngine()
    rows = mixed_rows(engine)
    expected = by_id(generate(rows, engine, reference))
    found = by_id(generate(rows, engine, Encoder(engine, reference, cache_bytes=1)))
    assert all((found[name].image == expected[name].image).all() for name in expected)


def test_rows_without_guidance_skip_the_unconditional_half():
    engine = FakeEngine(batch=8)
    list(generate([make_row(i, engine, guidance_scale=1.0) for i in range(4)], engine, reference))
    assert {rows for name, rows in engine.calls if name == "unet"} == {4}
    list(generate([make_row(i, engine, guidance_scale=2.0) for i in range(4)], engine, reference))
    assert {rows for name, rows in engine.calls if name == "unet"} == {4, 8}


def test_a_reference_that_cannot_be_loaded_fails_its_rows_only():
    engine = FakeEngine()
    rows = [make_row(i, engine, ref={"id": "bad" if i in (1, 3) else f"ref-{i}"}) for i in range(5)]
    samples = by_id(generate(rows, engine, reference))
    assert {name for name, s in samples.items() if s.status} == {"r1", "r3"}
    assert samples["r1"].status == 3 and samples["r1"].image is None
    assert samples["r1"].reason == "reference image bad: there is no such file"
    unused = make_row(9, engine, ref={"id": "bad"}, **{"lambda": None})
    assert next(generate([unused], engine, reference)).status == 0


def test_broken_images_are_failed_rows(monkeypatch):
    engine = FakeEngine()
    decode = engine.decode

    def broken(latents):
        images = decode(latents)
        images[1, 2, 3, 4] = float("nan")
        images[2] = 0.25
        return images

    monkeypatch.setattr(engine, "decode", broken)
    samples = by_id(generate([make_row(i, engine) for i in range(4)], engine, reference))
    assert [samples[f"r{i}"].status for i in range(4)] == [0, 1, 2, 0]
    assert "NaN or infinity" in samples["r1"].reason and samples["r1"].image is None
    assert samples["r2"].reason == "the whole image is one colour (159, 159, 159)"


def test_what_half_precision_cannot_decode_is_decoded_in_float32(monkeypatch):
    engine = FakeEngine()
    rows = [make_row(i, engine) for i in range(4)]
    expected = by_id(generate(rows, engine, reference))
    decode = engine.decode

    def overflowing(latents):
        images = decode(latents)
        images[1], images[2] = float("inf"), 0.25
        return images

    monkeypatch.setattr(engine, "decode", overflowing)
    monkeypatch.setattr(engine, "decode_exactly", lambda latents: decode(latents))
    samples = by_id(generate(rows, engine, reference))
    assert all((samples[name].image == expected[name].image).all() for name in expected)


def test_a_broken_row_names_the_stage_that_broke_it(monkeypatch):
    engine = FakeEngine()
    unet = engine.unet

    def broken(**tensors):
        noise = unet(**tensors)
        noise[0] = float("nan")
        return noise

    monkeypatch.setattr(engine, "unet", broken)
    samples = by_id(generate([make_row(i, engine, guidance_scale=1.0) for i in range(3)], engine, reference))
    assert samples["r0"].reason.startswith("unet gave NaN or infinity")
    assert [samples[f"r{i}"].status for i in range(3)] == [1, 0, 0]


def test_stopping_ends_after_whole_batches():
    engine = FakeEngine(batch=4)
    rows = [make_row(i, engine) for i in range(16)]
    made = []
    for sample in generate(rows, engine, reference, should_stop=lambda: len(made) >= 5):
        made.append(sample)
    assert len(made) == 8


def test_rounding_is_that_of_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    values = torch.linspace(-1.3, 1.3, 3 * 64 * 64).reshape(1, 3, 64, 64)
    expected = VaeImageProcessor().postprocess(values, output_type="pil")[0]
    assert (to_uint8(values)[0].numpy() == np.asarray(expected)).all()


def test_batches_are_full_and_keep_the_order():
    engine = FakeEngine()
    rows = [make_row(i, engine, guidance_scale=1.0 if i % 3 == 0 else 2.0) for i in range(10)]
    found = [(group.guided, [row.id for row in members]) for group, members in batches(rows, 4)]
    assert found == [
        (False, ["r0", "r3", "r6", "r9"]),
        (True, ["r1", "r2", "r4", "r5"]),
        (True, ["r7", "r8"]),
    ]


def test_rows_with_equal_executed_steps_share_a_batch():
    engine = FakeEngine()
    rows = [make_row(i, engine, mode="img2img", strength=s, steps=4) for i, s in enumerate((0.5, 0.6, 0.8))]
    assert group_of(rows[0]) == group_of(rows[1]) != group_of(rows[2])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 64}, "field 'width': got 64, allowed: 32, the size of this engine"),
        ({"scheduler": "dimm"}, "field 'scheduler': got \"dimm\", allowed: ddim, ddim_trailing, pndm,"),
        ({"seed": None}, "field 'seed': got nothing"),
        ({"lambda": {"policy": "ags"}}, "field 'lambda': got ags, allowed: a number or null"),
        ({"ref": None}, "field 'lambda': got 0.1, allowed: null, or a ref"),
        ({"ref": {"id": "x"}, "mode": "img2img", "strength": 0.5}, "field 'ref.role': got no init"),
        ({"mode": "img2img", "strength": 0.2}, "field 'strength': got 0.2, allowed: at least 0.25"),
        (
            {"adapters": [{"name": "a", "target": "unet"}]},
            "what this engine has (none); or fastgen build --lora a=PATH@1",
        ),
    ],
)
def test_rows_that_the_engine_cannot_make_are_refused(fields, message):
    with pytest.raises(EngineError) as error:
        make_row(1, FakeEngine(), **fields)
    assert message in str(error.value) and "row 'r1': " in str(error.value)


def test_a_complete_row_says_everything():
    row = make_row(1, FakeEngine(), guidance_scale=None)
    assert (row.steps, row.guidance_scale, row.scheduler, row.width, row.height) == (4, 3.0, "ddim", 32, 32)
    assert row.mode == "t2i" and row.negative_prompt == ""
