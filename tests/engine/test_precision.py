"""Half precision: decided in the graph, measured against float32, and left where it would overflow."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from fastgen.engine.build import build
from fastgen.engine.load import load_engine
from fastgen.engine.parity import IMAGE_PSNR_FLOOR, IMAGES, PSNR_FLOOR, compare, example_inputs
from fastgen.engine.precision import EXACT_DECODER, choose_precisions, largest_activation, lower
from fastgen.engine.spec import read_spec
from fastgen.engine.tensorrt_operators import check_graph, infer_edges
from fastgen.engine.translations import attention
from fastgen.errors import EngineError


@pytest.fixture(scope="module")
def half_path(tiny_model, tmp_path_factory):
    """An fp16 engine for ONNX Runtime."""
    out = tmp_path_factory.mktemp("engines") / "half"
    return build(tiny_model, precision="fp16", batch=4, out=out, say=lambda _: None)


def test_every_product_with_weights_is_in_half_precision_and_the_ends_are_float32(half_path):
    spec = read_spec(half_path)
    assert set(spec.precisions) == set(spec.components)
    assert {name for name, own in spec.precisions.items() if own == "fp32"} == {EXACT_DECODER}
    for name, part in spec.components.items():
        path = half_path / "onnx" / f"{name}.onnx"
        check_graph(path, part, loop=name == "unet", precision=spec.precisions[name])
        model = onnx.load(path, load_external_data=False)
        edges = infer_edges(model)
        heavy = {edges[n.input[1]].dtype for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")}
        assert heavy == {"FLOAT" if name == EXACT_DECODER else "FLOAT16"}
        norms = [n for n in model.graph.node if n.op_type == "InstanceNormalization"]
        assert all(edges[n.input[0]].dtype == "FLOAT" for n in norms)


def test_the_gate_measured_components_and_whole_images(half_path):
    spec = read_spec(half_path)
    assert spec.parity[IMAGES]["2"]["psnr_db"] >= IMAGE_PSNR_FLOOR["fp16"]
    assert PSNR_FLOOR["fp16"] <= spec.parity["unet"]["4"]["psnr_db"] < 120  # not float32 by mistake


def test_it_computes_nearly_what_the_float32_engine_does(half_path, tiny_engine):
    half = load_engine(half_path)
    inputs = example_inputs(half.spec.components["unet"], rows=3, vocabulary=len(half.tokenizer))
    assert compare(half.unet(**inputs), tiny_engine.unet(**inputs))["psnr_db"] >= PSNR_FLOOR["fp16"]
    latents = torch.randn(2, *half.spec.latent_shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(half.decode_exactly(latents), tiny_engine.decode(latents), atol=1e-4)
    assert tiny_engine.decode_exactly(latents) is None


def test_a_bf16_engine_of_the_torch_backend(tiny_model, tmp_path):
    path = build(tiny_model, backend="torch", precision="bf16", batch=2, out=tmp_path / "e", say=lambda _: None)
    spec = read_spec(path)
    assert spec.parity[IMAGES]["2"]["psnr_db"] >= IMAGE_PSNR_FLOOR["bf16"]
    assert 30 <= spec.parity["unet"]["2"]["psnr_db"] < 70


def test_onnxruntime_has_no_bf16(tiny_model, tmp_path):
    with pytest.raises(EngineError, match="precision bf16: ONNX Runtime cannot compute in it; take fp32"):
        build(tiny_model, precision="bf16", out=tmp_path / "e")


class Large(nn.Module):
    """Numbers in it reach 10 000 times its input's, what it gives is small again."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.up.weight, 1e4)
        nn.init.constant_(self.down.weight, 1e-4)

    def forward(self, x):
        return self.down(self.up(x))


def test_what_would_overflow_stays_float32_and_an_overflowing_unet_is_refused():
    modules = {"vae_decoder": Large(), "text_encoder": nn.Identity()}
    examples = {name: {"x" if name == "vae_decoder" else "input": torch.ones(1, 1)} for name in modules}
    assert largest_activation(modules["vae_decoder"], examples["vae_decoder"]) == pytest.approx(1e4)
    parts = dict.fromkeys(modules)
    chosen = choose_precisions(modules, parts, precision="fp16", examples=examples)
    assert chosen == {"vae_decoder": "fp32", "text_encoder": "fp16"}
    assert set(choose_precisions(modules, parts, precision="bf16", examples=examples).values()) == {"bf16"}
    with pytest.raises(EngineError, match="numbers as large as 10000 occur in this UNet"):
        choose_precisions({"unet": Large()}, {"unet": None}, precision="fp16", examples={"unet": {"x": torch.ones(1)}})
    assert lower(modules["vae_decoder"], "fp16").up.weight.dtype == torch.float16
    assert modules["vae_decoder"].up.weight.dtype == torch.float32


def test_attention_whose_unscaled_products_overflow_fp16_does_not():
    """The products of Stable Diffusion 2.1 overflow before they are scaled; here both factors are scaled first."""

    class Attend(nn.Module):
        def forward(self, q, k, v):
            return nn.functional.scaled_dot_product_attention(q, k, v)

    from fastgen.engine.translations import TABLE

    assert attention in TABLE.values()
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 16, 64, generator=generator)
    q, k = 60 * q.sign(), 60 * k.sign()
    q, k = torch.where(q == 0, 60.0, q), torch.where(k == 0, 60.0, k)
    k[0, :, 0] = q[0, :, 0]
    assert float((q @ k.transpose(2, 3)).max()) > 65504
    options = {"opset_version": 18, "custom_translation_table": TABLE, "dynamo": True, "verbose": False}
    program = torch.onnx.export(Attend().eval(), tuple(x.half() for x in (q, k, v)), **options)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    feeds = dict(zip(names, (x.half().numpy() for x in (q, k, v)), strict=True))
    (got,) = session.run(None, feeds)
    expected = nn.functional.scaled_dot_product_attention(q, k, v).numpy()
    assert np.isfinite(got).all() and np.abs(got - expected).max() < 0.01
