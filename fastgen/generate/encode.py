"""Prompts and reference images to tensors; each distinct one goes through its encoder once.

What an encoder says about an item does not depend on the items beside it: the engine runs every call in pieces of one
size. Memory is bounded: the least recently used results go first, so ten million different prompts need no
more than a thousand.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastgen.errors import ReferenceImageError
from fastgen.generate.inversion import Inversion, inversions_of, invert
from fastgen.records import Ref, Row

if TYPE_CHECKING:
    from PIL import Image

    from fastgen.engine.load import Engine

CACHE_BYTES = 256 * 2**20
"""Most memory for each of the four kinds of results (texts, image prompts, start images, inverted images)."""

LOAD_THREADS = 4
"""Threads that read reference images."""

LoadReference = Callable[[Ref], "Image.Image"]


class Cache:
    """Results of one encoder, bounded by their bytes."""

    def __init__(self, encode: Callable[[list], Tensor], *, size: int, limit: int = CACHE_BYTES) -> None:
        """Wrap an encoder.

        Args:
            encode: 1 to `size` items -> tensor (items, ...); row i belongs to item i.
            size: most items of one call.
            limit: bytes that are kept.
        """
        self._encode, self._size, self._limit = encode, size, limit
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0
        self.encoded = 0
        """Items that went through the encoder so far."""

    def __contains__(self, key: Hashable) -> bool:
        """Whether the result of `key` is kept."""
        return key in self._kept

    def add(self, items: Iterable[tuple[Hashable, object]]) -> dict[Hashable, Tensor]:
        """Encode (key, input) pairs and keep the results; returns them all, also what did not fit."""
        found: dict[Hashable, Tensor] = {}
        remaining = iter(items)
        while part := list(islice(remaining, self._size)):
            results = self._encode([item for _, item in part])
            self.encoded += len(part)
            for (key, _), result in zip(part, results, strict=True):
                found[key] = self._kept[key] = result.clone()
                self._bytes += result.nbytes
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes
        return found

    def rows(self, keys: Sequence[Hashable], make: Callable[[Any], object] = lambda key: key) -> Tensor:
        """Return the results of `keys` (repeats allowed), (len(keys), ...).

        Args:
            keys: what is asked for.
            make: the encoder's input of a key that is not kept.
        """
        needed = dict.fromkeys(keys)
        found = {key: self._kept[key] for key in needed if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        found.update(self.add((key, make(key)) for key in needed if key not in found))
        return torch.stack([found[key] for key in keys])


class Encoder:
    """Encodes what rows refer to: prompts, and references as image prompts or as start images."""

    def __init__(self, engine: "Engine", load_reference: LoadReference, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Start with empty caches.

        Args:
            engine: encoders, tokenizer and feature extractor.
            load_reference: gives the RGB image of a row's reference; raises ReferenceImageError.
            cache_bytes: most memory for each kind of results.
        """
        self._engine = engine
        self._load = load_reference
        size = engine.spec.batch
        self._texts = Cache(self._encode_texts, size=size, limit=cache_bytes)
        self._tokens = Cache(self._encode_tokens, size=size, limit=cache_bytes)
        self._moments = Cache(self._encode_moments, size=size, limit=cache_bytes)
        self._inverted = Cache(self._invert, size=size, limit=cache_bytes)
        self._cut = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many items were encoded, and how many prompts were longer than the text encoder reads."""
        return {
            "prompts": self._texts.encoded,
            "references": self._tokens.encoded + self._moments.encoded + self._inverted.encoded,
            "prompts_cut": self._cut,
        }

    def prepare(self, rows: Sequence[Row]) -> dict[str, str]:
        """Encode what these rows need, in full batches.

        Args:
            rows: complete rows; what they need together should fit into the caches, or some of it is encoded
                twice.

        Returns:
            row id -> reason, for the rows whose reference cannot be loaded.
        """
        prompts = dict.fromkeys(text for row in rows for text in _texts_of(row))
        self._texts.add((prompt, prompt) for prompt in prompts if prompt not in self._texts)
        inversions = {row.id or "": inversions_of(row) for row in rows}
        tokens = {row.id or "": [_key(row.ref)] for row in rows if row.ref and needs_tokens(row)}
        moments = {row.id or "": [_key(row.ref)] for row in rows if row.ref and row.mode == "img2img"}
        failed = self._prepare_references(self._inverted, inversions, self._to_invert)
        failed |= self._prepare_references(self._moments, moments, self._fitted)
        return failed | self._prepare_references(self._tokens, tokens, self._fitted)

    def _prepare_references(
        self, cache: Cache, wanted: Mapping[str, Sequence[Hashable]], load: Callable[[Any], object]
    ) -> dict[str, str]:
        """Encode what `cache` lacks of the keys that rows want; returns the rows whose images cannot be loaded."""
        bad: dict[Hashable, str] = {}
        keys = dict.fromkeys(key for own in wanted.values() for key in own)

        def attempt(key: Hashable) -> object:
            try:
                return load(key)
            except ReferenceImageError as error:
                bad[key] = str(error)
                return None

        def loaded() -> Iterator[tuple[Hashable, object]]:
            missing = iter([key for key in keys if key not in cache])
            with ThreadPoolExecutor(LOAD_THREADS) as pool:
                while part := list(islice(missing, 4 * LOAD_THREADS)):
                    items = pool.map(attempt, part)
                    yield from ((key, item) for key, item in zip(part, items, strict=True) if item is not None)

        cache.add(loaded())
        return {row_id: bad[key] for row_id, own in wanted.items() for key in own if key in bad}

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts, float32 (B, 77, D)."""
        return self._texts.rows(prompts)

    def image_tokens(self, refs: Sequence[Ref | None]) -> Tensor:
        """Image-prompt tokens of references, float32 (B, T, D); those of "no image" for None."""
        empty = self._engine.uncond_image_embeds
        given = [_key(ref) for ref in refs if ref is not None]
        if not given:
            return empty.expand(len(refs), *empty.shape[1:])
        found = iter(self._tokens.rows(given, self._fitted))
        return torch.stack([empty[0] if ref is None else next(found) for ref in refs])

    def moments(self, refs: Sequence[Ref]) -> Tensor:
        """Mean and log variance of the VAE's posterior for start images, float32 (B, 2C, h, w)."""
        return self._moments.rows([_key(ref) for ref in refs], self._fitted)

    def inverted(self, row: Row) -> tuple[Tensor, Tensor]:
        """Inverted references of a row of mode latent, twice float32 (C, h, w)."""
        first, second = self._inverted.rows(inversions_of(row), self._to_invert)
        return first, second

    def _fitted(self, ref: Ref) -> "Image.Image":
        """The reference at the engine's size, bilinear: aspect not kept (as DALDA does), or cut to its centre."""
        from PIL import Image, ImageOps

        side, method = (self._engine.spec.width, self._engine.spec.height), Image.Resampling.BILINEAR
        image = self._load(ref).convert("RGB")
        return ImageOps.fit(image, side, method) if ref.fit == "center_crop" else image.resize(side, method)

    def _to_invert(self, key: Inversion) -> "tuple[Inversion, Image.Image]":
        """The reference at the engine's size, Lanczos, aspect not kept (as Diff-II does)."""
        from PIL import Image

        spec = self._engine.spec
        image = self._load(key.ref).convert("RGB").resize((spec.width, spec.height), Image.Resampling.LANCZOS)
        return key, image

    def _invert(self, items: "list[tuple[Inversion, Image.Image]]") -> Tensor:
        results: dict[int, Tensor] = {}
        for steps in {key.steps for key, _ in items}:
            own = [number for number, (key, _) in enumerate(items) if key.steps == steps]
            text = self.texts([items[number][0].prompt for number in own])
            moments = self._encode_moments([items[number][1] for number in own])
            results |= zip(own, invert(self._engine, moments, text, steps=steps), strict=True)
        return torch.stack([results[number] for number in range(len(items))])

    def _encode_texts(self, prompts: list[str]) -> Tensor:
        tokenizer = self._engine.tokenizer
        length = tokenizer.model_max_length
        prompts = self._engine.expand(prompts)
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        full = [prompt for prompt, mask in zip(prompts, tokens.attention_mask, strict=True) if mask.all()]
        self._cut += sum(len(tokenizer(prompt).input_ids) > length for prompt in full)
        return self._engine.encode_text(tokens.input_ids)

    def _encode_tokens(self, images: "list[Image.Image]") -> Tensor:
        return self._engine.encode_image(self._engine.feature_extractor(images))

    def _encode_moments(self, images: "list[Image.Image]") -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        return self._engine.encode_moments(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)


def needs_tokens(row: Row) -> bool:
    """Whether the row has an image prompt."""
    return row.lambda_ is not None and row.ref is not None


def _texts_of(row: Row) -> list[str]:
    late = [row.prompt_late] if row.prompt_late is not None else []
    return [row.prompt, row.negative_prompt or "", *late]


def _key(ref: Ref) -> Ref:
    """What the pixels of a reference depend on; its role and the size it is said to have do not matter."""
    return replace(ref, role=("ip",), size=None)
