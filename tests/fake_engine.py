"""A stand-in for a loaded engine: no weights, every output row a function of the same input row, fast."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

SIZE, CHANNELS, SIDE, WIDTH, TOKENS = 32, 4, 8, 16, 4


class FakeTokenizer:
    """One id per character."""

    model_max_length = 77

    def __call__(self, text, **options):
        if isinstance(text, str):
            return SimpleNamespace(input_ids=[1, *(ord(c) % 997 for c in text), 2])
        ids, mask = torch.zeros(2, len(text), 77, dtype=torch.int64)
        for row, used, one in zip(ids, mask, text, strict=True):
            codes = self(one).input_ids[:77]
            row[: len(codes)] = torch.tensor(codes)
            used[: len(codes)] = 1
        return SimpleNamespace(input_ids=ids, attention_mask=mask)


class FakeEngine:
    """Has the attributes and methods of fastgen.engine.load.Engine, and counts its calls."""

    undisturbed = staticmethod(nullcontext)

    def __init__(self, *, batch=4, seconds_per_step=0.0, fingerprint="f" * 64):
        self.spec = SimpleNamespace(
            name="fake",
            batch=batch,
            height=SIZE,
            width=SIZE,
            latent_shape=(CHANNELS, SIDE, SIDE),
            scaling_factor=0.5,
            defaults={"steps": 4, "guidance_scale": 3.0},
            model={"id": "fake"},
            adapters={},
            words=(),
            has_image_prompt=True,
        )
        self.fingerprint = fingerprint
        self.device = torch.device("cpu")
        self.tokenizer = FakeTokenizer()
        self.scheduler_config = {
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
        }
        generator = torch.Generator().manual_seed(7)
        self._text = torch.randn(1000, WIDTH, generator=generator)
        self._mix = torch.randn(WIDTH, CHANNELS, generator=generator)
        self.uncond_image_embeds = torch.randn(1, TOKENS, WIDTH, generator=generator)
        self._seconds = seconds_per_step
        self.calls = []
        self.steps = None  # a multiprocessing.Value counts the steps for another process

    def feature_extractor(self, images):
        return torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1).float() / 255 for i in images])

    def expand(self, prompts):
        return prompts

    def encode_text(self, input_ids):
        self.calls.append(("text", len(input_ids)))
        return self._text[input_ids % 1000]

    def encode_image(self, pixel_values):
        self.calls.append(("image", len(pixel_values)))
        pooled = torch.nn.functional.adaptive_avg_pool2d(pixel_values, (4, 8)).flatten(1)
        return pooled.unflatten(1, (-1, WIDTH))[:, :1].repeat(1, TOKENS, 1)

    def encode_moments(self, images):
        self.calls.append(("moments", len(images)))
        mean = torch.nn.functional.adaptive_avg_pool2d(images, SIDE).repeat(1, 2, 1, 1)[:, :CHANNELS]
        return torch.cat([mean, torch.full_like(mean, -3)], dim=1)

    def unet(self, *, sample, timestep, text_embeds, image_embeds, ip_scale):
        self.calls.append(("unet", len(sample)))
        if self.steps is not None:
            self.steps.value += 1
        if self._seconds:
            time.sleep(self._seconds)
        assert len(sample) == len(timestep) == len(text_embeds) == len(image_embeds) == len(ip_scale)
        place = torch.arange(77, dtype=torch.float32).cos()[None, :, None]
        steer = (text_embeds * place).mean(1) + ip_scale[:, None] * image_embeds.mean(1)
        # sums of products in a fixed order per row, so that a row's bits do not depend on the batch
        bias = sum(steer[:, i, None] * self._mix[i] for i in range(WIDTH))
        bias = bias + (timestep.float() / 1000)[:, None]
        return torch.tanh(sample * 0.3 + bias[:, :, None, None])

    def decode_exactly(self, latents):
        self.calls.append(("decode exactly", len(latents)))
        return None

    def decode(self, latents):
        self.calls.append(("decode", len(latents)))
        return torch.tanh(latents[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3))


def reference(ref):
    """Load a reference: a picture that depends on the id; ids that start with "bad" cannot be loaded."""
    from fastgen.errors import ReferenceImageError

    if ref.id.startswith("bad"):
        raise ReferenceImageError(f"reference image {ref.id}: there is no such file")
    generator = np.random.default_rng(sum(ref.id.encode()))
    return Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8))
