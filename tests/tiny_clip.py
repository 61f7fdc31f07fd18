"""A random open_clip model of a few megabytes, saved as a folder that `ScoringClip.load` takes."""

import json
from pathlib import Path

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}


def make_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Writes config and weights into a new folder; the weights depend on the seed only."""
    import torch
    from open_clip import CLIP
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(**CONFIG)
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim == 2 and "embedding" not in name:
                torch.nn.init.normal_(weight, std=0.3)  # as initialised, all texts would lie close together
    folder.mkdir(parents=True)
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    text = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder
