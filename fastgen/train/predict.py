"""What a network says about images, with every process doing its part."""

import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import gather_object
from torch import nn

from fastgen.train.images import Images


@torch.inference_mode()
def predict(network: nn.Module, images: Images, rows: np.ndarray) -> np.ndarray:
    """Most likely class of every image, without augmentation; puts the network into its testing mode.

    Args:
        network: images or features -> logits (B, C).
        images: what it is fed with.
        rows: which of them, int64 (N,).

    Returns:
        int64 (N,).
    """
    process = PartialState()
    rank, world = process.process_index, process.num_processes
    device = next(network.parameters()).device
    network.eval()
    found = [network(x.to(device)).argmax(1).cpu().numpy() for x in images.clean(rows[rank::world])]
    parts = gather_object([np.concatenate(found) if found else np.zeros(0, np.int64)])
    predictions = np.zeros(len(rows), np.int64)
    for part, of_part in enumerate(parts):
        predictions[part::world] = of_part
    return predictions
