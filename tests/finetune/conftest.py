"""Pictures and a finished LoRA of the tiny model, made once."""

import pytest

from fastgen.finetune.lora import lora
from tests.finetune.pets import make_pets

SETTINGS = {"descriptor": "pet", "steps": 8, "warmup": 2, "batch": 4, "lr": 5e-2, "rank": 4, "alpha": 6.0}


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """Two classes of three pictures with captions; do not write into it."""
    return make_pets(tmp_path_factory.mktemp("pets") / "real")


@pytest.fixture(scope="session")
def trained(pets, tiny_model, tmp_path_factory):
    """A finished fine-tuning of 8 steps, samples drawn at the end."""
    out = tmp_path_factory.mktemp("lora") / "pets"
    return lora(pets, out=out, model=str(tiny_model), sample_every=8, say=lambda line: None, **SETTINGS)
