"""What an engine is: tensors in and out, where its weights came from, and the fingerprint of all of it.

`engine.json` is the only description of an engine. Everything that can change a pixel is in it, and its hash is the
engine's fingerprint, so an engine that differs in anything has another fingerprint.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.errors import EngineError
from fastgen.files import atomic_write_text, sha256_file, sha256_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
SPEC_FILE = "engine.json"
BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch")
PRECISIONS = ("fp32", "fp16", "bf16")
PROVIDERS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One named tensor of a component.

    Attributes:
        name: as in the graph.
        dtype: float32 or int64.
        shape: without the batch axis, which every tensor has first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return {"name", "dtype", "shape": ["B", ...]}."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["B", *self.shape]}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "TensorSpec":
        """Read what `to_json` wrote."""
        return cls(name=obj["name"], dtype=obj["dtype"], shape=tuple(obj["shape"][1:]))

    def __str__(self) -> str:
        """Return `sample float32 (B, 8, 16, 16)`."""
        return f"{self.name} {self.dtype} ({', '.join(['B', *map(str, self.shape)])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One callable of an engine: named tensors in, one tensor out."""

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec

    def to_json(self) -> dict[str, Any]:
        """Return {"inputs": [...], "outputs": [...]}."""
        return {"inputs": [t.to_json() for t in self.inputs], "outputs": [self.output.to_json()]}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Component":
        """Read what `to_json` wrote."""
        inputs = tuple(TensorSpec.from_json(t) for t in obj["inputs"])
        return cls(inputs=inputs, output=TensorSpec.from_json(obj["outputs"][0]))

    def check(self, name: str, tensors: Mapping[str, "Tensor"]) -> int:
        """Compare a call with this description and return its batch size.

        Args:
            name: the component, for messages.
            tensors: the call's arguments.

        Raises:
            EngineError: a name, dtype, shape or batch size is wrong.
        """
        expected = {t.name for t in self.inputs}
        if tensors.keys() != expected:
            raise EngineError(f"{name}: got the inputs {sorted(tensors)}, needs exactly {sorted(expected)}")
        batches = {}
        for spec in self.inputs:
            tensor = tensors[spec.name]
            dtype = str(tensor.dtype).removeprefix("torch.")
            if dtype != spec.dtype or tensor.ndim == 0 or tuple(tensor.shape[1:]) != spec.shape:
                raise EngineError(f"{name}: got {spec.name} {dtype} {tuple(tensor.shape)}, needs {spec}")
            batches[spec.name] = tensor.shape[0]
        sizes = set(batches.values())
        if len(sizes) != 1 or 0 in sizes:
            raise EngineError(f"{name}: every input needs the same number of rows, at least one; got {batches}")
        return sizes.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """The content of engine.json.

    Attributes:
        name: the engine's folder name at build.
        model: {"id", "files": {path as in a model folder: sha256}} of everything the model was loaded from; a VAE
            that replaces the model's own stands here in its place, a single-file checkpoint under its own name.
        ip_adapter: {"name", "sha256"}, or None for a text-only model.
        lora: fused adapters in order, [{"name", "scale", "targets": ["text", "unet"], "files": {relative path:
            sha256}}]; engines of earlier builds do not say which targets.
        embeddings: textual-inversion words in order, [{"name", "file", "sha256"}].
        backend: one of BACKENDS.
        precision: one of PRECISIONS.
        precisions: component -> what it computes in; fp32 where the engine's precision would overflow.
        opset: ONNX opset; None where there is no ONNX file.
        batch: rows of every execution; calls are cut and padded to it (see load.Engine).
        size: side of the square image, pixels.
        latent: {"channels", "size", "scaling_factor"}.
        components: name -> Component.
        defaults: the model's own generation settings, {"steps", "guidance_scale", "scheduler", "size", ...}.
        versions: package -> version of everything that took part in the build.
        parity: what `parity.measure` returned at build.
        plan: {"tensorrt", "gpu", "compute_capability", "driver", "optimization_level", "tf32"} of TensorRT plans;
            {"torch_compile": options} of an engine that torch compiles where it runs; None for all others.
        files: relative path -> sha256 of every other file of the engine folder.
        build_command: the command that builds this engine again. Not in the fingerprint: where the weights lay
            is not what they are.
    """

    name: str
    model: dict[str, Any]
    ip_adapter: dict[str, Any] | None
    lora: tuple[dict[str, Any], ...]
    embeddings: tuple[dict[str, Any], ...]
    backend: str
    precision: str
    precisions: dict[str, str]
    opset: int | None
    batch: int
    size: int
    latent: dict[str, Any]
    components: dict[str, Component]
    defaults: dict[str, Any]
    versions: dict[str, str]
    parity: dict[str, Any]
    plan: dict[str, Any] | None
    files: dict[str, str]
    build_command: str

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one row's latents."""
        return self.latent["channels"], self.latent["size"], self.latent["size"]

    @property
    def height(self) -> int:
        """Of the images, pixels."""
        return self.size

    @property
    def width(self) -> int:
        """Of the images, pixels."""
        return self.size

    @property
    def scaling_factor(self) -> float:
        """Of the VAE: latents that enter the denoising loop are encoder outputs times this."""
        return float(self.latent["scaling_factor"])

    @property
    def adapters(self) -> dict[str, float]:
        """Fused LoRAs, name -> scale."""
        return {lora["name"]: float(lora["scale"]) for lora in self.lora}

    def targets(self, name: str) -> tuple[str, ...]:
        """What the fused LoRA of a name changes: "unet", "text" or both; both if an earlier build did not say."""
        found = next(lora for lora in self.lora if lora["name"] == name)
        return tuple(found.get("targets", ("text", "unet")))

    @property
    def words(self) -> tuple[str, ...]:
        """Textual-inversion words that prompts may use."""
        return tuple(embedding["name"] for embedding in self.embeddings)

    @property
    def has_image_prompt(self) -> bool:
        """Whether the engine has an IP-Adapter; without one, image_embeds and ip_scale are ignored."""
        return self.ip_adapter is not None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `content`, 64 hex digits."""
        return sha256_json(self.content())

    def inputs(self) -> dict[str, Any]:
        """Everything a build starts from; an engine with equal inputs need not be built again."""
        sources = ("model", "ip_adapter", "lora", "embeddings")
        names = (*sources, "backend", "precision", "opset", "batch", "size", "versions", "plan")
        content = self.content()
        return {name: content[name] for name in names}

    def content(self) -> dict[str, Any]:
        """Return everything engine.json holds except the fingerprint and the build command."""
        obj = asdict(replace(self, components={}))
        del obj["build_command"]
        obj["components"] = {name: part.to_json() for name, part in self.components.items()}
        obj |= {name: list(obj[name]) for name in ("lora", "embeddings")}
        return {"fastgen_engine": FORMAT, **obj}

    def write(self, folder: Path) -> None:
        """Write engine.json into `folder`."""
        more = {"build_command": self.build_command, "fingerprint": self.fingerprint}
        text = json.dumps({**self.content(), **more}, indent=1)
        atomic_write_text(folder / SPEC_FILE, text + "\n")


def read_spec(folder: str | Path) -> EngineSpec:
    """Read engine.json and check that it is complete and unedited.

    Raises:
        EngineError: not an engine folder, another format version, or changed since the build.
    """
    path = Path(folder) / SPEC_FILE
    try:
        obj = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"{folder} is not an engine folder (no {SPEC_FILE}); build one: fastgen build") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path} is damaged ({error}); build the engine again: fastgen build") from error
    version = obj.pop("fastgen_engine", None) if isinstance(obj, dict) else None
    if version != FORMAT:
        raise EngineError(
            f"{path} has format version {version!r}, this fastgen reads {FORMAT}; run fastgen build again"
        )
    fingerprint = obj.pop("fingerprint", None)
    expected = {field.name for field in fields(EngineSpec)}
    if obj.keys() != expected:
        differing = sorted(obj.keys() ^ expected)
        raise EngineError(f"{path} has missing or unknown entries: {', '.join(differing)}; run fastgen build again")
    changed = EngineError(f"{path} was changed after the build; build the engine again: {obj['build_command']}")
    try:
        components = {name: Component.from_json(part) for name, part in obj["components"].items()}
        lists = {name: tuple(obj[name]) for name in ("lora", "embeddings")}
        spec = EngineSpec(**{**obj, **lists, "components": components})
        if spec.fingerprint != fingerprint:
            raise changed
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise changed from error
    return spec


def hash_files(folder: Path, names: Sequence[str] | None = None) -> dict[str, str]:
    """Return {relative path: sha256} of the files below `folder`, sorted by path, hidden ones left out.

    Args:
        folder: searched recursively.
        names: only files below these entries of the folder; None: all.
    """
    roots = [folder] if names is None else [folder / name for name in names]
    paths: set[Path] = set()
    for root in roots:
        paths.update([root] if root.is_file() else (p for p in root.rglob("*") if p.is_file()))
    relative = sorted(p.relative_to(folder).as_posix() for p in paths if not p.name.startswith("."))
    return {name: sha256_file(folder / name) for name in relative}


def verify_files(folder: Path, spec: EngineSpec) -> None:
    """Compare every file of the engine with the SHA-256 recorded at build.

    Raises:
        EngineError: files are missing or differ; all of them are named.
    """
    problems = []
    for name, sha in spec.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256_file(path) != sha:
            problems.append(f"{name} has other content than at build")
    if problems:
        raise EngineError(f"engine {folder}: {'; '.join(problems)}. Build it again: {spec.build_command}")
