"""Makes a small random model folder in diffusers layout, with the embedded model's architecture at toy width."""

from pathlib import Path

import torch

TEXT_WIDTH = 32
IMAGE_WIDTH = 48
WORDS = "a photo of the cat dog bird red blue small on grass in snow best quality high low monochrome".split()


def make_tiny_model(folder: Path, *, ip_adapter: bool = True, seed: int = 0) -> Path:
    """Write a random Stable Diffusion style model folder (about 2 MB).

    Args:
        folder: written; must not hold a model already.
        ip_adapter: also write `image_encoder/` and `ip_adapter/ip-adapter_tiny.safetensors`.
        seed: of the weights.

    Returns:
        `folder`, loadable by StableDiffusionPipeline.from_pretrained.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=make_text_encoder(),
        tokenizer=_tokenizer(folder.parent / f"{folder.name}-vocab"),
        unet=make_unet(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        ),
        safety_checker=None,
        feature_extractor=_feature_extractor() if ip_adapter else None,
        image_encoder=_image_encoder() if ip_adapter else None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    if ip_adapter:
        write_ip_adapter(folder / "ip_adapter" / "ip-adapter_tiny.safetensors", seed=seed)
    return folder


def make_unet():
    """UNet2DConditionModel of the mini layout: (32, 64) channels, one cross-attention level, 8 channels of 16x16."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
    ).eval()


def write_ip_adapter(path: Path, *, seed: int = 0) -> Path:
    """Write a random base IP-Adapter (4 tokens) for `make_unet`, in the official key layout."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    width = 4 * TEXT_WIDTH
    state = {
        "image_proj.proj.weight": torch.randn(width, IMAGE_WIDTH, generator=generator) * 0.2,
        "image_proj.proj.bias": torch.randn(width, generator=generator) * 0.5,
        "image_proj.norm.weight": 1 + 0.1 * torch.randn(TEXT_WIDTH, generator=generator),
        "image_proj.norm.bias": 0.1 * torch.randn(TEXT_WIDTH, generator=generator),
    }
    layers = [name for name in make_unet().attn_processors if name.endswith("attn2.processor")]
    for i in range(len(layers)):
        for name in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{2 * i + 1}.{name}.weight"] = torch.randn(64, TEXT_WIDTH, generator=generator) * 0.3
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=0.7,
    )


def make_text_encoder():
    """CLIPTextModel, TEXT_WIDTH wide, 2 layers, 77 tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary = _vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=TEXT_WIDTH,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return CLIPTextModel(config)


def _image_encoder():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=IMAGE_WIDTH,
    )
    return CLIPVisionModelWithProjection(config)


def _feature_extractor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _bpe():
    """A byte-pair tokenizer with CLIP's word endings, trained on WORDS; deterministic."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.'-")
    trainer = trainers.BpeTrainer(
        vocab_size=200,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([*WORDS * 4, *letters], trainer)
    return bpe


def _vocabulary() -> dict[str, int]:
    return _bpe().get_vocab()


def _tokenizer(folder: Path):
    """CLIPTokenizer from vocab.json and merges.txt written into `folder`."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = _bpe().model.save(str(folder))
    return CLIPTokenizer(vocab, merges, model_max_length=77)
