"""A random vision transformer with two narrow blocks, saved as a folder that timm loads."""

import json
from pathlib import Path


def make_tiny_vit(folder: Path, *, seed: int = 0) -> Path:
    """Writes config and weights of a transformer for 32 pixels into a new folder; the seed decides the weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    args = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "num_features": 16,
        "model_args": args,
        "pretrained_cfg": {
            "input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic",
            "crop_pct": 0.9, "classifier": "head", "first_conv": "patch_embed.proj", "num_classes": 0,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder
