"""What a row may want of an engine's LoRAs: name, scale, and weights for the part it names."""

import pytest

from fastgen.engine.spec import EngineSpec
from fastgen.errors import EngineError
from fastgen.generate.batch import complete_row
from fastgen.records import Row
from tests.fake_engine import FakeEngine

CONFIG = FakeEngine().scheduler_config


def spec(**lora):
    entry = {"name": "bob", "scale": 1.0, "files": {}, **lora}
    return EngineSpec(
        name="e", model={"id": "m", "files": {}}, ip_adapter=None, lora=(entry,), embeddings=(), backend="torch",
        precision="fp32", precisions={}, opset=None, batch=1, size=64, latent={}, components={}, defaults={},
        versions={}, parity={}, plan=None, files={}, build_command="",
    )  # fmt: skip


def complete(spec, *targets):
    adapters = [{"name": "bob", "target": target, "scale": 1.0} for target in targets]
    obj = {"id": "r", "class": "cat", "prompt": "a cat", "seed": 1, "lambda": None, "adapters": adapters}
    return complete_row(Row.from_json(obj, None), spec, CONFIG)


def test_a_lora_without_weights_for_the_text_encoder_is_refused_where_a_row_wants_them():
    """Card of BOB, mistake 6: the text encoder's half is half of the adaptation."""
    assert len(complete(spec(targets=["text", "unet"]), "unet", "text").adapters) == 2
    assert len(complete(spec(targets=["unet"]), "unet").adapters) == 1
    for there, other in (("unet", "text"), ("text", "unet")):
        message = rf'got {{"bob": "{other}"}}, allowed: {there}, all that the LoRA bob of this engine changes; or build'
        with pytest.raises(EngineError, match=message):
            complete(spec(targets=[there]), "unet", "text")


def test_an_engine_of_an_earlier_build_does_not_say_and_is_trusted():
    assert spec().targets("bob") == ("text", "unet")
    assert len(complete(spec(), "unet", "text").adapters) == 2
