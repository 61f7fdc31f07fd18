"""A random ResNet with narrow stages, saved as a folder that timm loads."""

import json
from pathlib import Path


def make_tiny_resnet(folder: Path, *, seed: int = 0) -> Path:
    """Writes config and weights of a resnet10t for 32 pixels into a new folder; the seed decides the weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    args = {"channels": [8, 8, 16, 24], "stem_width": 8, "stem_type": "deep"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model("resnet10t", num_classes=5, **args)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 5,
        "num_features": 24,
        "model_args": args,
        "pretrained_cfg": {
            "input_size": [3, 32, 32], "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2],
            "interpolation": "bilinear", "crop_pct": 1.0, "classifier": "fc", "first_conv": "conv1.0",
            "num_classes": 5, "pool_size": [1, 1],
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder
