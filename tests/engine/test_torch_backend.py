"""The torch backend: what `--compile` leaves behind, pieces, recordings, and weights in the engine's precision."""

import threading
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from fastgen.engine import torch_backend
from fastgen.engine.build import build
from fastgen.engine.gpu import on_gpu
from fastgen.engine.load import load_engine
from fastgen.engine.parity import compare, example_inputs
from fastgen.engine.spec import read_spec
from fastgen.engine.torch_backend import COMPILE_OPTIONS, WEIGHTS, compile_plan, load_modules, rows_together
from fastgen.engine.torch_program import RecordedProgram, ThreadedProgram, rows_per_piece
from fastgen.errors import EngineError
from tests.fake_tensorrt import FakeStream

BATCH = 4


@pytest.fixture(scope="module")
def half_path(tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("engines") / "half"
    return build(tiny_model, backend="torch", precision="fp16", batch=BATCH, out=out, say=lambda _: None)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_compile_is_refused_for_other_backends(tiny_model, tmp_path, backend):
    with pytest.raises(EngineError, match=f"compile: got it with the backend {backend}, allowed: torch"):
        build(tiny_model, backend=backend, compile=True, out=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_compile_is_part_of_the_fingerprint_the_name_and_the_command(tiny_model, tmp_path, monkeypatch):
    """With a compiler that does nothing: inductor's takes minutes here, see the slow test."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.append(options) or module)
    monkeypatch.chdir(tmp_path)
    path = build(tiny_model, backend="torch", compile=True, batch=2, say=lambda _: None)
    plain = build(tiny_model, backend="torch", batch=2, say=lambda _: None)
    assert (path.name, plain.name) == ("tiny-torch-fp32-compiled-b2-s64", "tiny-torch-fp32-b2-s64")
    spec, other = read_spec(path), read_spec(plain)
    assert spec.plan == compile_plan() and other.plan is None
    assert spec.fingerprint != other.fingerprint and spec.inputs() != other.inputs()
    assert "--compile" in spec.build_command.split() and "--compile" not in other.build_command
    assert asked == [{"fullgraph": True, "dynamic": False, "options": COMPILE_OPTIONS}] * 2  # UNet and VAE decoder
    lines: list[str] = []
    build(tiny_model, backend="torch", compile=True, batch=2, say=lines.append)
    assert "up to date" in lines[0]
    build(tiny_model, backend="torch", batch=2, out=path, say=lines.append)
    assert "built again: other plan" in lines[1] or "other versions, other plan" in lines[1]


def test_another_backend_names_a_command_without_compile(half_path, tmp_path):
    spec = read_spec(half_path)
    replace(spec, build_command=spec.build_command + " --compile").write(tmp_path)
    with pytest.raises(EngineError, match="--backend onnxruntime") as error:
        load_engine(tmp_path, backend="onnxruntime")
    assert "--compile" not in str(error.value)


def test_threads_have_whole_rows():
    assert [rows_per_piece(8, threads) for threads in (1, 2, 3, 4, 8, 64)] == [8, 4, 1, 2, 1, 1]
    assert [rows_per_piece(6, threads) for threads in (2, 3, 4)] == [3, 2, 2]
    seen = []

    class Module(torch.nn.Module):
        def forward(self, x):
            seen.append((len(x), torch.get_num_threads()))
            return x + 1

    x = torch.arange(8.0)[:, None]
    for number, expected in ((4, (2, 1)), (16, (1, 2))):
        program = ThreadedProgram(Module(), 8, threads=number)
        assert torch.equal(program({"x": x}), x + 1) and torch.equal(program({"x": -x}), 1 - x)
        assert set(seen) == {expected}
        seen.clear()


def test_workers_keep_their_number_of_threads_until_their_first_row():
    """They have only started when the main thread sets a number of its own."""
    before, started, busy, seen = torch.get_num_threads(), threading.Barrier(2), threading.Barrier(2), []

    class Module(torch.nn.Module):
        def forward(self, x):
            busy.wait(timeout=60)  # so that both workers have a piece
            seen.append(torch.get_num_threads())
            return x + 1

    try:
        program = ThreadedProgram(Module(), 4, threads=2)
        program._is_warm = True
        list(program._pool.map(lambda _: started.wait(timeout=60), range(2)))
        torch.set_num_threads(3)
        program({"x": torch.zeros(4, 1)})
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


@pytest.mark.slow
def test_a_compiled_engine_computes_what_the_model_does(tiny_model, tmp_path):
    path = build(tiny_model, backend="torch", compile=True, batch=2, out=tmp_path / "e", say=lambda _: None)
    assert read_spec(path).parity["unet"]["2"]["relative"] < 1e-4


def test_unet_and_decoder_compile_as_one_graph_each(tiny_model):
    """Traced, not compiled: inductor takes a graph as it comes, and a break in it would cost a launch per layer."""
    from fastgen.engine.components import describe
    from fastgen.engine.model import load_model
    from fastgen.engine.model_files import find_sources

    model = load_model(find_sources(tiny_model))
    parts = describe(model.modules, size=64)
    for name in torch_backend.COMPILED:
        inputs = example_inputs(parts[name], rows=2, vocabulary=9)
        compiled = torch.compile(model.modules[name], backend="eager", fullgraph=True, dynamic=False)
        with torch.no_grad():
            assert torch.equal(compiled(**inputs), model.modules[name](**inputs))


def test_pieces_of_the_decoder_have_one_shape_and_change_no_image(half_path, monkeypatch):
    whole = load_engine(half_path)
    latents = torch.randn(3, *whole.spec.latent_shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch_backend, "PIECE_PIXELS", 3 * 64 * 64)
    pieces = load_engine(half_path)
    assert rows_together("vae_decoder", pieces.spec) == 2 and rows_together("unet", pieces.spec) == BATCH
    programs, decoded = pieces._backend._programs, []
    decode = programs["vae_decoder"]
    programs["vae_decoder"] = lambda tensors: decoded.append(len(tensors["latents"])) or decode(tensors)
    together = pieces.decode(latents)
    assert compare(together, whole.decode(latents))["psnr_db"] > 50
    assert torch.equal(pieces.decode(latents[2:]), together[2:])
    assert decoded == [2, 2, 2], "three images take two pieces of two, and one image one: not a whole batch"
    monkeypatch.setattr(torch_backend, "PIECE_PIXELS", 1)
    assert rows_together("vae_decoder_fp32", pieces.spec) == 1


def test_weights_are_kept_in_the_precision_they_compute_in(half_path):
    dtypes = {}
    for path in (half_path / WEIGHTS).rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            dtypes[path.parent.name] = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert dtypes["unet"] == dtypes["text_encoder"] == dtypes["image_encoder"] == {"F16"}
    assert dtypes["vae"] == dtypes[WEIGHTS] == {"F32"}, "the exact decoder and the adapter's shared projection"
    loaded = load_modules(half_path / WEIGHTS, has_adapter=True)
    assert {p.dtype for module in loaded.values() for p in module.parameters()} == {torch.float32}


def test_a_recording_reads_fixed_addresses_and_gives_the_caller_its_own_result(half_path):
    """The stream is a stand-in that calls again what a GPU would replay; what is recorded is the real thing."""
    part = read_spec(half_path).components["unet"]
    addresses = []

    class Module(torch.nn.Module):
        def forward(self, sample, timestep, text_embeds, image_embeds, ip_scale):
            addresses.append(sample.data_ptr())
            return sample * ip_scale[:, None, None, None] + timestep[:, None, None, None]

    program = RecordedProgram(Module(), part, BATCH, FakeStream())
    assert not addresses, "nothing is recorded, or compiled, before the first call"
    inputs = example_inputs(part, rows=BATCH, vocabulary=9)
    with torch.inference_mode():
        first = program({key: value.clone() for key, value in inputs.items()})
    kept = first.clone()
    second = program({key: value + 1 for key, value in inputs.items()})
    assert torch.equal(first, kept) and not torch.equal(first, second)
    assert len(set(addresses)) == 1 and addresses[0] != inputs["sample"].data_ptr()
    scale, shift = (inputs[name][:, None, None, None] for name in ("ip_scale", "timestep"))
    assert torch.equal(first, inputs["sample"] * scale + shift)


def test_modules_are_where_they_were_after_their_work():
    module = torch.nn.Linear(2, 2)
    weight = module.weight.data_ptr()
    with pytest.raises(ZeroDivisionError), on_gpu([module, module]):
        raise ZeroDivisionError
    assert module.weight.data_ptr() == weight and module.weight.device.type == "cpu"
