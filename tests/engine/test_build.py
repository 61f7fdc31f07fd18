"""Building: what is written, when it is written again, and when nothing is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastgen.engine import build as builder
from fastgen.engine import parity
from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.model_files import find_sources
from fastgen.engine.spec import read_spec
from fastgen.errors import EngineError, FastgenError, ModelError, OutputError


@pytest.fixture
def engine_copy(tiny_engine_path, tmp_path):
    """An engine folder that a test may damage."""
    return shutil.copytree(tiny_engine_path, tmp_path / "tiny")


@pytest.fixture
def model_copy(tiny_model, tmp_path):
    """A model folder that a test may damage."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def silent(_: str) -> None:
    pass


def test_engine_json_says_everything(tiny_engine_path, tiny_model):
    obj = json.loads((tiny_engine_path / "engine.json").read_text())
    assert obj["fastgen_engine"] == 2 and len(obj["fingerprint"]) == 64
    unet = obj["components"]["unet"]
    assert [(t["name"], t["dtype"], t["shape"]) for t in unet["inputs"]] == [
        ("sample", "float32", ["B", 8, 16, 16]),
        ("timestep", "float32", ["B"]),
        ("text_embeds", "float32", ["B", 77, 32]),
        ("image_embeds", "float32", ["B", 4, 32]),
        ("ip_scale", "float32", ["B"]),
    ]
    assert unet["outputs"] == [{"name": "noise", "dtype": "float32", "shape": ["B", 8, 16, 16]}]
    assert obj["model"]["id"] == "tiny"
    files = obj["model"]["files"].keys()
    assert {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"} <= files
    assert obj["ip_adapter"]["name"] == "ip-adapter_tiny.safetensors"
    assert (obj["batch"], obj["size"], obj["precision"], obj["opset"]) == (4, 64, "fp32", 18)
    assert {"torch", "diffusers", "onnx", "fastgen"} <= obj["versions"].keys()
    assert obj["defaults"] == {"steps": 30, "guidance_scale": 7.5, "size": 64}
    assert obj["parity"]["unet"]["4"]["relative"] < 1e-4
    on_disk = {p.relative_to(tiny_engine_path).as_posix() for p in tiny_engine_path.rglob("*") if p.is_file()}
    assert on_disk == obj["files"].keys() | {"engine.json"}


def test_graphs_have_the_tensors_of_engine_json(tiny_engine_path):
    import onnx

    for name, part in read_spec(tiny_engine_path).components.items():
        graph = onnx.load(tiny_engine_path / "onnx" / f"{name}.onnx", load_external_data=False).graph
        shapes = {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.input}
        assert {key: tuple(shape[1:]) for key, shape in shapes.items()} == {t.name: t.shape for t in part.inputs}
        assert all(isinstance(shape[0], str) for shape in shapes.values()), "the batch axis must stay free"
        assert [v.name for v in graph.output] == [part.output.name]


def test_nothing_in_an_engine_but_the_typed_command_names_the_machine(tiny_engine_path, tiny_model):
    command = read_spec(tiny_engine_path).build_command
    for path in tiny_engine_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes().replace(command.encode(), b"")
            assert str(tiny_model).encode() not in content, path
            assert b"site-packages" not in content and b"fastgen/engine" not in content, path


def test_second_build_says_that_there_is_nothing_to_do(tiny_engine_path, tiny_model):
    before = (tiny_engine_path / "engine.json").stat()
    lines: list[str] = []
    assert build(tiny_model, batch=4, out=tiny_engine_path, say=lines.append) == tiny_engine_path
    assert len(lines) == 1 and "up to date" in lines[0]
    assert (tiny_engine_path / "engine.json").stat() == before


def test_graphs_that_other_code_wrote_are_not_up_to_date(engine_copy, tiny_model, tmp_path, monkeypatch):
    for name in builder.WRITERS:
        shutil.copy(Path(builder.__file__).with_name(f"{name}.py"), tmp_path)
    monkeypatch.setattr(builder, "__file__", str(tmp_path / "build.py"))
    monkeypatch.setattr(builder, "_build", lambda folder, *_, **__: folder)
    lines: list[str] = []
    build(tiny_model, batch=4, out=engine_copy, say=lines.append)
    (tmp_path / "fusion.py").write_text("def fuse_for_openvino(model): ...")
    build(tiny_model, batch=4, out=engine_copy, say=lines.append)
    assert "up to date" in lines[0] and lines[1].endswith("is built again: other versions")


def test_every_weight_byte_counts(model_copy):
    start = find_sources(model_copy).to_json()
    weights = sorted(model_copy.rglob("*.safetensors"))
    assert len(weights) == 5
    for path in weights:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        now = find_sources(model_copy).to_json()
        assert now != start, path
        start = now


def test_changed_model_is_built_again_in_place(engine_copy, model_copy):
    (model_copy / "fastgen.json").write_text('{"defaults": {"steps": 12, "scheduler": "ddim"}}')
    lines: list[str] = []
    old = read_spec(engine_copy)
    build(model_copy, batch=4, backend="torch", out=engine_copy, say=lines.append)
    assert "built again: other model, other backend" in lines[0]
    spec = read_spec(engine_copy)
    assert spec.defaults == {"steps": 12, "guidance_scale": 7.5, "size": 64, "scheduler": "ddim"}
    assert spec.fingerprint != old.fingerprint
    assert not (engine_copy / "onnx").exists()


def test_refused_parity_leaves_nothing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    with pytest.raises(EngineError, match="differs from its model: text_encoder at batch 1"):
        build(tiny_model, batch=2, backend="torch", out=tmp_path / "engines" / "tiny", say=silent)
    assert list((tmp_path / "engines").iterdir()) == []


def test_nan_does_not_pass_the_gate(tiny_engine_path):
    nan = torch.full((2, 3), float("nan"))
    numbers = {"unet": {"1": parity.compare(nan, torch.ones(2, 3))}}
    with pytest.raises(EngineError, match="unet at batch 1"):
        parity.check(numbers, read_spec(tiny_engine_path))


def test_damaged_engines_are_refused(engine_copy, tiny_model):
    graph = engine_copy / "onnx" / "unet.onnx.data"
    content = bytearray(graph.read_bytes())
    content[1000] ^= 1
    graph.write_bytes(content)
    (engine_copy / "onnx" / "vae_encoder.onnx").unlink()
    with pytest.raises(EngineError) as error:
        load_engine(engine_copy)
    text = str(error.value)
    assert "onnx/unet.onnx.data has other content" in text and "onnx/vae_encoder.onnx is missing" in text
    assert f"fastgen build --model {tiny_model} --backend onnxruntime --precision fp32 --batch 4 --size 64" in text


def test_edited_and_foreign_engine_json_are_refused(engine_copy, tmp_path):
    path = engine_copy / "engine.json"
    original = json.loads(path.read_text())
    for change, message in [
        ({"batch": 5}, "was changed after the build"),
        ({"fastgen_engine": 1}, "format version 1, this fastgen reads 2"),
        ({"colour": "red"}, "unknown entries: colour"),
    ]:
        path.write_text(json.dumps({**original, **change}))
        with pytest.raises(EngineError, match=message):
            load_engine(engine_copy)
    path.write_text("{")
    with pytest.raises(EngineError, match="damaged"):
        load_engine(engine_copy)
    with pytest.raises(EngineError, match="not an engine folder"):
        load_engine(tmp_path)


def test_another_backend_names_the_command(tiny_engine_path):
    with pytest.raises(EngineError, match="built for onnxruntime, not torch.*fastgen build .*--backend torch"):
        load_engine(tiny_engine_path, backend="torch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "directml"}, "backend: got 'directml', allowed: onnxruntime, openvino, tensorrt, torch"),
        ({"precision": "int8"}, "precision: got 'int8', allowed: fp32, fp16, bf16"),
        ({"batch": 0}, "batch: got 0"),
        ({"size": 60}, "size 60: this model makes squares whose side is a multiple of 8"),
        ({"lora": ["x"]}, "NAME=PATH"),
        ({"ip_adapter": "none.bin"}, "IP-Adapter none.bin does not exist"),
        ({"model": "nowhere"}, "model 'nowhere' was not found"),
        ({"model": "nobody/nothing"}, "it is no folder, and the hub says"),
    ],
)
def test_bad_options_are_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(FastgenError, match=message):
        build(**{"model": tiny_model, "out": tmp_path / "engine", "say": silent, **options})
    assert not (tmp_path / "engine").exists()


def test_a_folder_that_is_no_engine_is_left_alone(tiny_model, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="is no engine"):
        build(tiny_model, out=tmp_path, say=silent)
    assert (tmp_path / "thesis.tex").exists()


def test_incomplete_models_are_refused(model_copy):
    index = json.loads((model_copy / "model_index.json").read_text())
    shutil.rmtree(model_copy / "vae")
    with pytest.raises(ModelError, match="has no folder vae/"):
        find_sources(model_copy)
    (model_copy / "model_index.json").write_text(json.dumps({**index, "unet": ["diffusers", "FluxTransformer2DModel"]}))
    with pytest.raises(ModelError, match="unet is a FluxTransformer2DModel"):
        find_sources(model_copy)


@pytest.mark.parametrize("text", ['{"steps": 12}', '{"defaults": {"step": 12}}'])
def test_unknown_entries_of_fastgen_json_are_refused(model_copy, text):
    (model_copy / "fastgen.json").write_text(text)
    with pytest.raises(ModelError, match="unknown entries: steps?; its form is"):
        find_sources(model_copy).defaults()


def test_several_adapters_need_a_choice(model_copy):
    folder = model_copy / "ip_adapter"
    shutil.copy(folder / "ip-adapter_tiny.safetensors", folder / "second.safetensors")
    with pytest.raises(ModelError, match=r"several IP-Adapters.*ip-adapter_tiny\.safetensors, second\.safetensors"):
        find_sources(model_copy)
    assert find_sources(model_copy, ip_adapter="second.safetensors").adapter == folder / "second.safetensors"


BUILD = (
    "import sys; from fastgen.engine.build import build; build(sys.argv[1], backend='torch', batch=2, out=sys.argv[2])"
)


def test_processes_that_build_the_same_engine_at_once_build_it_once(tiny_model, tmp_path):
    out = tmp_path / "engines" / "tiny"
    words = [sys.executable, "-c", BUILD, str(tiny_model), str(out)]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    ends = sorted(text.splitlines()[-1].removeprefix(f"{out} is ").split()[0] for text in said)
    assert ends == ["ready,", "up", "up"], said
    assert load_engine(out).spec.backend == "torch"
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_build_that_is_killed_is_in_nobodys_way(tiny_model, tmp_path):
    out = tmp_path / "engines" / "tiny"
    words = [sys.executable, "-c", BUILD, str(tiny_model), str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading tiny\n"
        process.kill()
    assert not out.exists()
    build(tiny_model, backend="torch", batch=2, out=out, say=silent)
    assert load_engine(out).spec.backend == "torch"
