"""What `--compile` changes on a GPU: the same numbers, whichever way they are computed."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastgen.engine import torch_backend
from fastgen.engine.adapters import ConditionedUNet, RowIPAttnProcessor
from fastgen.engine.components import VaeDecoder
from fastgen.engine.parity import compare
from fastgen.engine.spec import read_spec
from fastgen.engine.torch_backend import TorchBackend, compile_plan
from fastgen.engine.torch_fusion import ChannelsLastGroupNorm, fuse_for_gpu, pieces_of
from fastgen.errors import EngineError
from tests.fake_tensorrt import FakeStream
from tests.real_shapes import unet_config, vae_config

SCALE = 10


def make_unet(*, adapter=True, **changes):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    plain = UNet2DConditionModel(**{**unet_config("sd15", SCALE), **changes})
    unet = ConditionedUNet.new(plain, clip_dim=64) if adapter else ConditionedUNet(plain)
    return unet.half().eval().requires_grad_(False).to(memory_format=torch.channels_last)


def make_decoder():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return VaeDecoder(AutoencoderKL(**vae_config("sd15", SCALE)).half().eval()).requires_grad_(False)


def arguments(unet):
    generator = torch.Generator().manual_seed(1)
    width = unet.token_dim
    shapes = ((2, 4, 8, 8), (2, 77, width), (2, 4, width))
    sample, text, image = (torch.randn(shape, generator=generator) for shape in shapes)
    return sample, torch.tensor([3.0, 900.0]), text, image, torch.tensor([0.0, 0.8])


@pytest.mark.parametrize("shape", [(2, 64, 16, 16), (3, 96, 5, 7), (2, 64, 30), (1, 32, 128, 64)])
@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0])
def test_a_group_norm_is_the_same_in_other_steps(shape, mean):
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, shape[1], eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (torch.randn(shape) + mean).half()
    x = x.to(memory_format=torch.channels_last) if x.dim() == 4 else x
    expected = F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps)
    got = ChannelsLastGroupNorm(norm.half())(x)
    assert got.dtype == torch.float16 and got.shape == x.shape
    theirs = F.group_norm(x.float(), 32, norm.weight.float(), norm.bias.float(), norm.eps).half()
    assert (got - expected).abs().max() <= 1.5 * (theirs - expected).abs().max() + 2e-3
    assert compare(got, expected)["psnr_db"] > 60


@pytest.mark.parametrize("rows, positions, channels", [(32, 4096, 320), (8, 262144, 128), (2, 81, 64), (1, 1, 32)])
def test_pieces_divide_the_positions(rows, positions, channels):
    pieces = pieces_of(rows, positions, channels)
    assert positions % pieces == 0 and (pieces == 1 or positions // pieces >= 64)
    assert pieces == 1 or rows * pieces * channels / 64 < 2 * 2048 + 2048


def test_the_decoder_computes_what_it_did_and_leaves_the_encoder_alone():
    decoder, latents = make_decoder(), torch.randn(2, 4, 8, 8)
    expected = decoder(latents)
    fuse_for_gpu(decoder)
    assert compare(decoder(latents), expected)["psnr_db"] > 50
    kinds = {type(part).__name__ for part in decoder.vae.decoder.modules()}
    assert "ChannelsLastGroupNorm" in kinds and "GroupNorm" not in kinds
    assert not any(isinstance(part, ChannelsLastGroupNorm) for part in decoder.vae.encoder.modules())


def test_the_unet_computes_what_it_did():
    """The kernel cannot run here; its turn is in the next test and on a GPU."""
    unet = make_unet(adapter=False)
    inputs = arguments(unet)
    expected = unet(*inputs)
    fuse_for_gpu(unet)
    assert compare(unet(*inputs), expected)["psnr_db"] > 50
    assert not any(isinstance(part, ChannelsLastGroupNorm) for part in unet.modules()), "inductor's are faster there"
    own = {type(p).__name__ for name, p in unet.unet.attn_processors.items() if ".attn1." in name}
    assert own == {"FusedAttnProcessor2_0"}


def test_who_gets_the_kernel():
    def kinds(unet):
        fuse_for_gpu(unet)
        return {type(p).__name__ for p in unet.unet.attn_processors.values() if isinstance(p, RowIPAttnProcessor)}

    assert kinds(make_unet()) == {"OneKernelProcessor"}
    assert kinds(make_unet(adapter=False)) == {"RowIPAttnProcessor"}
    assert kinds(make_unet(upcast_attention=True)) == {"RowIPAttnProcessor"}
    full = make_unet().float()
    before = {name: type(part) for name, part in full.named_modules()}
    assert kinds(full) == {"RowIPAttnProcessor"}, "float32 stays as it is"
    assert before == {name: type(part) for name, part in full.named_modules()}


INTERPRETED = """
import torch
from fastgen.engine.adapters import RowIPAttnProcessor
from fastgen.engine.row_attention import MAX_HEAD, OneKernelProcessor
from tests.engine.test_torch_fusion import arguments, make_unet
from fastgen.engine.parity import compare
from fastgen.engine.torch_fusion import fuse_for_gpu

unet = make_unet()
inputs = arguments(unet)
expected = unet(*inputs)
text_only = unet(*inputs[:4], torch.zeros(2))
fuse_for_gpu(unet)
got = unet(*inputs)
print(compare(got, expected)["psnr_db"], compare(got, text_only)["psnr_db"])
assert compare(got, expected)["psnr_db"] > 50 > compare(got, text_only)["psnr_db"]

for length, heads, width, text, tokens in ((100, 2, 40, 77, 4), (64, 1, 128, 9, 16), (5, 3, 16, 77, 4)):
    torch.manual_seed(0)
    q, k, v, ki, vi = (torch.randn(3, n, heads * width).half() for n in (length, text, text, tokens, tokens))
    weights = torch.tensor([0.0, 0.3, 1.0])

    class Layer:
        to_k = staticmethod(lambda _: k)
        to_v = staticmethod(lambda _: v)
        upcast_attention = False

    class Image:
        to_k_ip = staticmethod(lambda _: ki)
        to_v_ip = staticmethod(lambda _: vi)

    Layer.heads = heads
    arguments_ = (Layer, q, k, ki, weights)
    ours = OneKernelProcessor(Image).attend(*arguments_)
    assert compare(ours, RowIPAttnProcessor(Image).attend(*arguments_))["psnr_db"] > 55, width
    alone = OneKernelProcessor(Image).attend(Layer, q, k, ki, torch.zeros(3))
    assert torch.equal(alone[0], ours[0]) and not torch.equal(alone[2], ours[2])
"""


def test_the_kernel_computes_what_two_attentions_do():
    """In Triton's interpreter, which needs no GPU; float16, because it cannot do bfloat16."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("capability", [80, 89, 90, 120])
@pytest.mark.parametrize("width", [40, 80, 128])
def test_the_kernel_compiles_for_cards_that_are_not_here(capability, width, monkeypatch, tmp_path):
    """As inductor does it, which types a Python float as float64: all sums would become that, six times as slow."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from fastgen.engine import row_attention

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, launched = row_attention._attend_to_both, []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: launched.append((grid, arguments, constants))

    monkeypatch.setattr(row_attention, "_attend_to_both", Recorder())
    q, k, v, ki, vi = (torch.zeros(3, n, 8 * width, dtype=torch.float16) for n in (200, 77, 77, 4, 4))
    row_attention.attend_to_both(q, k, v, ki, vi, torch.ones(3), heads=8)
    ((grid, arguments, constants),) = launched
    assert grid == (8, 4, 3)
    kinds = {torch.float16: "*fp16", torch.float32: "*fp32", int: "i32", float: "fp64"}
    typed = [kinds[x.dtype if isinstance(x, torch.Tensor) else type(x)] for x in arguments]
    signature = dict(zip(kernel.arg_names, typed, strict=False)) | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature, constants)
    options = {"enable_fp_fusion": True}  # as it is by default, but for the warning that this will change
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert ".f64" not in compiled.asm["ptx"]
    assert compiled.metadata.num_warps == 4 and compiled.metadata.shared <= 99 * 1024


def test_an_engine_for_other_kernels_is_refused_on_a_gpu(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    path = torch_engine(tiny_model, tmp_path)
    spec = read_spec(path)
    assert spec.plan == compile_plan()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_backend, "CudaStream", FakeStream)
    TorchBackend(path, spec)
    with pytest.raises(EngineError, match="built with --compile for other kernels.*--compile") as error:
        TorchBackend(path, replace(spec, plan={**spec.plan, "torch_fusion": "0" * 12}))
    assert spec.build_command in str(error.value)


def torch_engine(model, folder):
    from fastgen.engine.build import build

    return build(model, backend="torch", compile=True, batch=2, out=folder / "engine", say=lambda _: None)
