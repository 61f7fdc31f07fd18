"""The vectors' squared distance is LPIPS' formula, as torchmetrics computes it on the same network and heads."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image.lpips import _LPIPS

from fastgen.evaluate.perceptual import embedder, stage_vectors

SIDE = 48


@pytest.fixture(scope="module")
def oracle():
    """torchmetrics' LPIPS over a random AlexNet with random heads; no download."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _LPIPS(pretrained=False, net="alex", pnet_rand=True)
        for head in net.lins:
            torch.nn.init.uniform_(head.model[-1].weight, 0, 1)
    return net


def pixels(count, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def squared_distances(one, other):
    return (one.double() - other.double()).square().sum(1)


def test_formula_equals_torchmetrics(oracle):
    one, other = pixels(3), pixels(3, seed=1)
    heads = [head.model[-1].weight.flatten() for head in oracle.lins]
    both = [stage_vectors(oracle.net(oracle.scaling_layer(2 * x - 1)), heads) for x in (one, other)]
    expected = oracle(one, other, normalize=True).flatten().double()
    assert expected.min() > 1e-4
    torch.testing.assert_close(squared_distances(*both), expected, rtol=1e-4, atol=0)


def test_equal_weights_are_the_mean_over_stages_and_places():
    one = [torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[[3.0]], [[0.0]]]])]
    other = [torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]]), torch.tensor([[[[0.0]], [[0.5]]]])]
    weights = [torch.full((2,), 0.5)] * 2
    # stage 1: places differ by 0 and 2, mean 1; stage 2: 2 whatever the lengths; mean over stages 1.5
    found = squared_distances(stage_vectors(one, weights), stage_vectors(other, weights))
    assert float(found) == pytest.approx(1.5, abs=1e-6)


def test_a_place_without_any_activation_stays_zero():
    found = stage_vectors([torch.zeros(2, 4, 3, 3)], [torch.ones(4)])
    assert found.shape == (2, 36) and not found.any()


def test_images_are_squashed_and_normalised():
    seen = []

    def stages(x):
        seen.append(x)
        return [x.abs()]

    embed = embedder(stages, [torch.ones(3)], side=4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), device="cpu")
    found = embed([Image.new("RGB", (20, 9), (255, 0, 51))])
    assert found.shape == (1, 48) and found.dtype == np.float32
    assert seen[0].shape == (1, 3, 4, 4)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], [1.0, -1.0, 0.2], atol=1e-6)
