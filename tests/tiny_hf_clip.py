"""A CLIPModel of transformers with two narrow towers and random weights, as a folder that `from_pretrained` takes."""

from pathlib import Path

from tests.real_shapes import write_tokenizer


def make_tiny_hf_clip(folder: Path) -> Path:
    """Write the folder (about 3 MB, most of it the true vocabulary's embeddings) and return it."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    towers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**towers, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407},
        vision_config={**towers, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)  # as initialised, all texts would lie close together
    write_tokenizer(folder)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder
