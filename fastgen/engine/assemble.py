"""Fills an engine folder: graphs or weights, plans, the small files, and the comparison with the model."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fastgen.engine import parity
from fastgen.engine.components import describe
from fastgen.engine.export import export_onnx
from fastgen.engine.gpu import on_gpu
from fastgen.engine.load import UNCOND_FILE, UNCOND_KEY, open_engine
from fastgen.engine.model import Model
from fastgen.engine.model_files import Sources
from fastgen.engine.ort_backend import GRAPHS
from fastgen.engine.precision import EXACT_DECODER, choose_precisions, lower
from fastgen.engine.spec import Component, EngineSpec, hash_files
from fastgen.engine.tokenizer import VOCABULARY
from fastgen.engine.torch_backend import WEIGHTS, save_modules


def fill_folder(
    tmp: Path,
    model: Model,
    *,
    sources: Sources,
    inputs: dict[str, Any],
    name: str,
    provider: str,
    say: Callable[[str], None],
) -> EngineSpec:
    """Write everything but engine.json, open the engine, and compare it with the model.

    Args:
        tmp: an empty folder.
        model: loaded.
        sources: where it came from.
        inputs: what the build starts from, as in `EngineSpec.inputs`.
        name: of the engine.
        provider: where ONNX Runtime computes for the comparison.
        say: gets one line per step.

    Returns:
        The final spec, but for its build command.

    Raises:
        EngineError: the precision does not suffice, a backend refuses a graph, or the engine differs from the model.
    """
    modules, parts = _components(model, inputs)
    shape = parts["unet"].output.shape
    with on_gpu(modules.values()):
        examples = parity.examples(modules, parts, rows=1, vocabulary=len(model.tokenizer))
        precisions = choose_precisions(modules, parts, precision=inputs["precision"], examples=examples)
    _report(precisions, inputs["precision"], say)
    _write_program(tmp, modules, parts, precisions=precisions, inputs=inputs, say=say)
    _write_small_files(tmp, model, sources)
    for path in tmp.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # some writers keep their files to their user
    draft = EngineSpec(
        **{**inputs, **{key: tuple(inputs[key]) for key in ("lora", "embeddings")}},
        name=name,
        latent={
            "channels": shape[0],
            "size": shape[1],
            "scaling_factor": float(modules["vae_decoder"].vae.config.scaling_factor),
        },
        components=parts,
        precisions=precisions,
        defaults={**sources.defaults(), "size": inputs["size"]},
        parity={},
        files={},
        build_command="",
    )
    say("comparing the engine with the model")
    with on_gpu(modules.values()):
        numbers = parity.measure(modules, open_engine(tmp, draft, provider=provider))
    parity.check(numbers, draft)
    return replace(draft, parity=numbers, files=hash_files(tmp))


def _components(model: Model, inputs: Mapping[str, Any]) -> tuple[dict[str, nn.Module], dict[str, Component]]:
    """Modules and descriptions; an fp16 engine has its VAE decoder in float32 too, for images that overflow."""
    modules = dict(model.modules)
    parts = describe(modules, size=inputs["size"])
    if inputs["precision"] == "fp16":
        modules[EXACT_DECODER], parts[EXACT_DECODER] = modules["vae_decoder"], parts["vae_decoder"]
    return modules, parts


def _report(precisions: Mapping[str, str], asked: str, say: Callable[[str], None]) -> None:
    exact = [name for name, own in precisions.items() if own != asked and name != EXACT_DECODER]
    if exact:
        say(f"{', '.join(exact)}: stays fp32, because its numbers come near the largest of {asked}")


def _write_program(
    tmp: Path,
    modules: Mapping[str, nn.Module],
    parts: Mapping[str, Component],
    *,
    precisions: Mapping[str, str],
    inputs: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Write what the backend computes with."""
    if inputs["backend"] == "torch":
        say("writing the fused weights")
        save_modules(tmp / WEIGHTS, modules, precisions)
        return
    (tmp / GRAPHS).mkdir()
    for name, part in parts.items():
        say(f"exporting {name}")
        # OpenVINO lowers a float32 graph itself, and knows what must stay float32 then
        own = "fp32" if inputs["backend"] == "openvino" else precisions[name]
        module, path = lower(modules[name], own), tmp / GRAPHS / f"{name}.onnx"
        export_onnx(module, part, path, rewrite=_rewrite(inputs))
    if inputs["backend"] == "tensorrt":
        from fastgen.engine.tensorrt_build import build_plans
        from fastgen.engine.tensorrt_platform import require_tensorrt

        build_plans(require_tensorrt(), tmp, parts, precisions=precisions, batch=inputs["batch"], say=say)


def _rewrite(inputs: Mapping[str, Any]) -> Callable[[Any], None] | None:
    """How the exported graphs are changed for what runs them."""
    from fastgen.engine.fusion import fuse_for_onnxruntime, fuse_for_openvino

    if inputs["backend"] == "openvino":
        return fuse_for_openvino
    # half precision is for GPUs and stays as TensorRT would take it: what fusing gains there was not measured
    return fuse_for_onnxruntime if (inputs["backend"], inputs["precision"]) == ("onnxruntime", "fp32") else None


def _write_small_files(tmp: Path, model: Model, sources: Sources) -> None:
    """Write tokenizer, preprocessing, scheduler config and the unconditional image tokens."""
    from safetensors.torch import save_file

    (tmp / "tokenizer").mkdir()
    if sources.embeddings or not (sources.folder / "tokenizer" / VOCABULARY).exists():
        model.tokenizer.save_pretrained(tmp / "tokenizer")
    else:
        for path in (sources.folder / "tokenizer").iterdir():
            if path.is_file():
                shutil.copyfile(path, tmp / "tokenizer" / path.name)
    if model.feature_extractor is not None:
        model.feature_extractor.save_pretrained(tmp / "feature_extractor")
    (tmp / "scheduler").mkdir()
    (tmp / "scheduler" / "scheduler_config.json").write_text(json.dumps(model.scheduler_config, indent=1) + "\n")
    save_file({UNCOND_KEY: model.uncond_image_embeds.contiguous()}, tmp / UNCOND_FILE)
