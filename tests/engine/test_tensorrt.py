"""The TensorRT backend over TensorRT's real classes: what the builder is told, how a plan runs, how both refuse."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from fastgen.engine import gpu, tensorrt_platform
from fastgen.engine.build import build
from fastgen.engine.spec import Component, EngineSpec, TensorSpec
from fastgen.engine.tensorrt_backend import TensorRTBackend
from fastgen.engine.tensorrt_build import build_options, build_plan, build_plans, timing_cache_path
from fastgen.engine.tensorrt_platform import check_platform, describe_platform, make_logger, require_tensorrt
from fastgen.engine.tensorrt_progress import BuildProgress
from fastgen.errors import EngineError
from tests.fake_tensorrt import GPU, FakeTensorRT
from tests.tensorrt_bindings import Stand

UNET = Component(
    inputs=(
        TensorSpec(name="sample", dtype="float32", shape=(2, 3)),
        TensorSpec(name="ip_scale", dtype="float32", shape=()),
    ),
    output=TensorSpec(name="noise", dtype="float32", shape=(2, 3)),
)
TEXT = Component(
    inputs=(TensorSpec(name="input_ids", dtype="int64", shape=(5,)),),
    output=TensorSpec(name="text_embeds", dtype="float32", shape=(5, 2)),
)
PARTS = {"unet": UNET, "text_encoder": TEXT}
BATCH = 3


@pytest.fixture
def folder(tmp_path):
    """An engine folder with the graphs of two small components: noise = sample * ip_scale, and a table of words."""
    path = tmp_path / "engine"
    (path / "onnx").mkdir(parents=True)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Unsqueeze", ["ip_scale", "axes"], ["scale"]),
        helper.make_node("Mul", ["sample", "scale"], ["noise"]),
    ]
    save(path, "unet", nodes, [axes])
    words = helper.make_tensor("words", TensorProto.FLOAT, [4, 2], range(8))
    save(path, "text_encoder", [helper.make_node("Gather", ["words", "input_ids"], ["text_embeds"])], [words])
    return path


def save(folder, name, nodes, weights):
    def value(spec):
        kind = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}[spec.dtype]
        return helper.make_tensor_value_info(spec.name, kind, ["B", *spec.shape])

    part = PARTS[name]
    graph = helper.make_graph(nodes, name, [value(s) for s in part.inputs], [value(part.output)], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "onnx" / f"{name}.onnx")


def spec(fake, **changes):
    """An engine.json for `folder`."""
    nothing = {"model": {}, "ip_adapter": None, "lora": (), "embeddings": (), "latent": {}, "defaults": {}}
    nothing |= {"versions": {}, "parity": {}}
    made = EngineSpec(
        **nothing,
        name="tiny",
        backend="tensorrt",
        precision="fp32",
        opset=18,
        batch=BATCH,
        size=8,
        components=PARTS,
        precisions=dict.fromkeys(PARTS, "fp32"),
        plan={**describe_platform(fake), **build_options()},
        files={},
        build_command="fastgen build --backend tensorrt",
    )
    return replace(made, **changes)


def build_all(fake, folder):
    lines: list[str] = []
    build_plans(fake, folder, PARTS, precisions=dict.fromkeys(PARTS, "fp32"), batch=BATCH, say=lines.append)
    return lines


def build_one(fake, folder, cache, say=lambda _: None, progress=None):
    graph = folder / "onnx" / "unet.onnx"
    progress = progress or BuildProgress("unet")
    return build_plan(fake, graph, UNET, batch=BATCH, cache=cache, progress=progress, say=say)


def unet_inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return {"sample": torch.randn(BATCH, 2, 3, generator=generator), "ip_scale": torch.rand(BATCH, generator=generator)}


def test_the_classes_are_tensorrt_elevens(trt):
    assert trt.__version__.split(".")[0] == "11" and trt.Builder.__module__.startswith("tensorrt")


def test_stands_refuse_what_tensorrt_does_not_have(trt):
    stand = Stand(trt, "IExecutionContext", execute_async_v3=lambda stream_handle: True)
    assert stand.execute_async_v3(7) and stand.execute_async_v3(stream_handle=7)
    for wrong in (lambda: stand.execute_async_v3(), lambda: stand.execute_async_v3(stream=7)):
        with pytest.raises(TypeError, match="takes .*stream_handle"):
            wrong()
    with pytest.raises(TypeError, match="stream_handle"):
        stand.execute_async_v3("7")
    with pytest.raises(AttributeError, match="IExecutionContext has no execute_async_v2"):
        stand.execute_async_v2(7)
    with pytest.raises(AssertionError, match="ICudaEngine has no num_bindings"):
        Stand(trt, "ICudaEngine", num_bindings=1)
    config = Stand(trt, "IBuilderConfig", set_flag=lambda flag: None)
    with pytest.raises(AttributeError, match="no max_workspace_size"):
        config.max_workspace_size = 1
    with pytest.raises(TypeError, match="SupportsInt"):
        config.builder_optimization_level = "high"
    with pytest.raises(TypeError, match="set_flag takes"):
        config.set_flag(trt.MemoryPoolType.WORKSPACE)
    with pytest.raises(AssertionError, match="returns bool"):
        Stand(trt, "IExecutionContext", execute_async_v3=lambda stream_handle: None).execute_async_v3(7)


def test_the_builder_is_told_types_shapes_and_limits(fake, folder, tmp_path):
    plan = build_one(fake, folder, tmp_path / "cache.timing")
    assert plan.startswith(b'{"sample"')
    assert fake.log["shapes"] == {"sample": [(3, 2, 3)] * 3, "ip_scale": [(3,)] * 3}
    assert fake.log["cleared"] == [fake.BuilderFlag.TF32]
    assert fake.log["flags"] == [fake.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE]
    assert fake.log["pool"] == (fake.MemoryPoolType.WORKSPACE, GPU.memory // 2)
    assert fake.log["config"].builder_optimization_level == build_options()["optimization_level"] == 3
    assert fake.log["phases"] == [[True] * 4]


def test_kernel_times_are_kept_by_version_and_gpu(fake, folder, tmp_path):
    path = timing_cache_path(describe_platform(fake))
    assert path == tmp_path / "cache" / "tensorrt" / f"{fake.__version__}-Test_GPU_80GB-sm9.0.timing"
    lines: list[str] = []
    build_one(fake, folder, path, lines.append)
    assert path.read_bytes() == b"timings" and fake.log["timings"] == b""
    build_one(fake, folder, path, lines.append)
    assert fake.log["timings"] == b"timings" and fake.log["ignore_mismatch"] is False and lines == []
    path.write_bytes(b"rubbish")
    build_one(fake, folder, path, lines.append)
    assert fake.log["timings"] == b"" and path.read_bytes() == b"timings"
    assert len(lines) == 1 and "damaged" in lines[0]


def test_a_cache_folder_that_cannot_be_written_costs_a_line(fake, folder, tmp_path):
    (tmp_path / "file").write_text("")
    lines: list[str] = []
    build_one(fake, folder, tmp_path / "file" / "cache", lines.append)
    assert len(lines) == 1 and "was not kept" in lines[0]


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("parse", "cannot read unet.onnx\n  Det n1: no kernel"),
        ("profile", "does not accept the shapes of unet.onnx for batch 3"),
        ("build", "could not build unet.onnx for batch 3: out of kernels"),
    ],
)
def test_a_failed_build_says_why(fake, folder, tmp_path, fail, message):
    fake.fail = fail
    with pytest.raises(EngineError, match=message):
        build_one(fake, folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_ctrl_c_ends_the_build(fake, folder, tmp_path):
    class Impatient(BuildProgress):
        def step(self, phase, done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_one(fake, folder, tmp_path / "cache", progress=Impatient("unet"))
    assert fake.log["phases"] == [[False] * 4]


def test_progress_is_drawn_on_a_terminal(trt, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with BuildProgress("unet") as progress:
        monitor = progress.monitor(trt)
        assert isinstance(monitor, trt.IProgressMonitor)
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Tactics", "Building", 4)
        assert monitor.step_complete("Tactics", 1)
        tasks = {task.description.strip(): (task.completed, task.total) for task in progress._bars.tasks}
        assert tasks == {"unet: Building": (0, 2), "Tactics": (2, 4)}
        monitor.phase_finish("Tactics")
        assert len(progress._bars.tasks) == 1


def test_plans_run_and_results_stay(fake, folder):
    lines = build_all(fake, folder)
    assert [line.split(";")[0] for line in lines] == [f"building the TensorRT plan of {name}" for name in PARTS]
    assert {path.name for path in (folder / "tensorrt").iterdir()} == {"unet.plan", "text_encoder.plan"}
    backend = TensorRTBackend(folder, spec(fake))
    assert fake.log["scratch"] == 4096 and fake.log["executions"] == 4  # each plan: once to warm up, once to record
    first, second = unet_inputs(1), unet_inputs(2)
    one = backend("unet", first)
    two = backend("unet", second)
    assert fake.log["executions"] == 6
    for inputs, result in ((first, one), (second, two)):
        assert torch.equal(result, inputs["sample"] * inputs["ip_scale"][:, None, None])
    ids = torch.tensor([[0, 1, 2, 3, 0]] * BATCH)
    words = torch.arange(8.0).view(4, 2)
    assert torch.equal(backend("text_encoder", {"input_ids": ids}), words[ids])


def test_inputs_that_need_gradients_leave_no_trace(fake, folder):
    build_all(fake, folder)
    inputs = unet_inputs(1)
    inputs["sample"].requires_grad_()
    assert not TensorRTBackend(folder, spec(fake))("unet", inputs).requires_grad


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("deserialize", "TensorRT does not accept the plan: wrong magic; build the engine again: fastgen build"),
        ("context", "is the GPU's memory full"),
        ("shape", r"3 rows of sample float32 \(B, 2, 3\) are outside of its profile"),
        ("execute", "could not start it; build the engine again"),
    ],
)
def test_a_plan_that_does_not_run_says_why(fake, folder, fail, message):
    build_all(fake, folder)
    fake.fail = fail
    with pytest.raises(EngineError, match=f"unet.plan: .*{message}"):
        TensorRTBackend(folder, spec(fake))


def test_plans_that_are_not_the_ones_of_engine_json_are_refused(fake, folder):
    build_all(fake, folder)
    with pytest.raises(EngineError, match=r"sample takes \(3, 2, 3\) to \(3, 2, 3\); .*B = 4; build the engine again"):
        TensorRTBackend(folder, spec(fake, batch=4))
    other = replace(UNET, inputs=(replace(UNET.inputs[0], dtype="int64"), UNET.inputs[1]))
    with pytest.raises(EngineError, match="its sample is DataType.FLOAT.*engine.json says sample int64"):
        TensorRTBackend(folder, spec(fake, components={"unet": other}))
    with pytest.raises(EngineError, match=r"it has the tensors \['ip_scale', 'noise', 'sample'\], engine.json says"):
        TensorRTBackend(folder, spec(fake, components={"unet": TEXT}))
    (folder / "tensorrt" / "unet.plan").unlink()
    with pytest.raises(EngineError, match="unet.plan cannot be read .*build the engine again"):
        TensorRTBackend(folder, spec(fake))


def test_another_version_or_architecture_is_refused(fake):
    here = describe_platform(fake)
    for key, value, message in [
        ("tensorrt", "11.3.0.99", "built for TensorRT 11.3.0.99 .here: 11"),
        ("compute_capability", "8.0", r"built for compute capability 8.0 \(here: 9.0\).*again here: fastgen build"),
    ]:
        with pytest.raises(EngineError, match=message):
            check_platform(spec(fake, plan={**here, key: value}), here)
    with pytest.warns(UserWarning, match="tuned on a Big GPU, this is a Test GPU 80GB"):
        check_platform(spec(fake, plan={**here, "gpu": "Big GPU"}), here)
    check_platform(spec(fake, plan={**here, "driver": "1.0"}), here)


def test_what_is_missing_is_said_at_once(fake, monkeypatch):
    assert require_tensorrt() is fake
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(fake._trt, version="10.9.0"))
    with pytest.raises(EngineError, match="got TensorRT 10.9.0, needed is 11.*--backend onnxruntime"):
        require_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(tensorrt_platform, "current_gpu", lambda: None)
    with pytest.raises(EngineError) as error:
        require_tensorrt()
    text = str(error.value)
    assert "finds no NVIDIA GPU" in text and "pip install 'fastgen-diffusion[tensorrt]'" in text and "\n" not in text


def test_a_build_stops_before_the_model_is_read(monkeypatch):
    monkeypatch.setattr(tensorrt_platform, "current_gpu", lambda: None)
    with pytest.raises(EngineError, match="the tensorrt backend cannot be used here: PyTorch finds no NVIDIA GPU"):
        build("nowhere", backend="tensorrt")


def test_a_graph_that_tensorrt_cannot_take_is_found_before_anything_is_built(fake, folder):
    save(folder, "text_encoder", [helper.make_node("Det", ["input_ids"], ["text_embeds"])], [])
    with pytest.raises(EngineError, match=r"cannot take text_encoder.onnx:\n  Det"):
        build_all(fake, folder)
    assert not (folder / "tensorrt").exists()


def test_the_logger_is_tensorrts_and_keeps_errors_only(trt):
    logger = make_logger(trt)
    assert isinstance(logger, trt.ILogger) and logger.reason() == ""
    logger.log(trt.ILogger.Severity.WARNING, "slow")
    for i in range(9):
        logger.log(trt.ILogger.Severity.ERROR, f"e{i} ")
    assert logger.reason() == ": e4; e5; e6; e7; e8"


def test_the_bench_refuses_a_machine_without_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    bench = Path(__file__).parents[2] / "bench" / "gpu.py"
    done = subprocess.run([sys.executable, str(bench)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "PyTorch finds none; run it on a machine with one" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_gpu_has_none():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu.current_gpu() is None
