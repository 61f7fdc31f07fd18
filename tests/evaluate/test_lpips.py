"""LPIPS equals torchmetrics' on the same trunk and the published heads; without weights there is one clear error."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image.lpips import _LPIPS

from fastgen.errors import FastgenError, ModelError
from fastgen.evaluate import lpips as module
from fastgen.evaluate.lpips import lpips_measure

SIDE = 64


def random_trunk(name, folder):
    """torchmetrics' LPIPS with the published heads over a random trunk, and a file of that trunk."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # the heads that torchmetrics ships were saved on a GPU and load on any machine
        oracle = _LPIPS(pretrained=True, net=name, pnet_rand=True)
    layers = {}
    for part in (getattr(oracle.net, f"slice{i}") for i in range(1, 6)):
        layers |= {f"features.{key}": value.clone() for key, value in part.state_dict().items()}
    file = folder / f"{name}.pth"
    torch.save({**layers, "classifier.1.weight": torch.zeros(1)}, file)
    return oracle, file


def pictures(count, seed=0, size=(SIDE, SIDE)):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for _ in range(count)]


def as_pixels(images):
    return torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images]).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("name", ["alex", "vgg"])
def test_distances_equal_torchmetrics(name, tmp_path):
    oracle, file = random_trunk(name, tmp_path)
    found = lpips_measure(f"{name}={file}", side=SIDE)
    assert (found.name, found.kind) == (f"lpips_{name}", "distance")
    one, other = pictures(2), pictures(2, seed=1)
    expected, stages = oracle(as_pixels(one), as_pixels(other), normalize=True, retperlayer=True)
    squares = np.square(found.embed(one).astype(np.float64) - found.embed(other))
    np.testing.assert_allclose(squares.sum(1), expected.flatten(), rtol=1e-4)
    # stage by stage: in a random network the deep stages add little to the sum, and could be wrong unseen
    widths = [output[0].numel() for output in oracle.net(as_pixels(one))]
    parts = np.split(squares, np.cumsum(widths)[:-1], axis=1)
    for part, stage in zip(parts, stages, strict=True):
        np.testing.assert_allclose(part.sum(1), stage.flatten(), rtol=1e-3)


def test_images_of_other_sizes_are_squashed_and_the_hash_knows_the_side(tmp_path):
    _, file = random_trunk("alex", tmp_path)
    small, large = (lpips_measure(f"alex={file}", side=side) for side in (SIDE, 2 * SIDE))
    image = pictures(1, size=(30, 50))[0]
    squashed = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small.embed([image]), small.embed([squashed]))
    assert small.sha256 != large.sha256
    assert large.embed([image]).shape[1] > small.embed([image]).shape[1]


@pytest.mark.parametrize(
    ("lpips", "message"),
    [
        ("squeeze", "lpips is 'squeeze'; it must be alex or vgg"),
        ("alex=/nowhere.pth", "no weights at /nowhere.pth; give a file of torchvision's AlexNet weights"),
    ],
)
def test_unknown_name_or_place(lpips, message):
    with pytest.raises(FastgenError, match=message):
        lpips_measure(lpips, side=SIDE)


@pytest.mark.parametrize("content", [b"broken", {"fc.weight": torch.zeros(2)}])
def test_a_file_of_something_else_is_named(content, tmp_path):
    file = tmp_path / "some.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(ModelError, match=r"some\.pth does not hold torchvision's VGG-16 weights"):
        lpips_measure(f"vgg={file}", side=SIDE)


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    from torchvision.models import AlexNet_Weights

    def offline(self, *args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", offline)
    message = r"not on this machine .*\(no route to host\).*--lpips alex=FILE.*resnet_distance"
    with pytest.raises(ModelError, match=message):
        lpips_measure("alex", side=SIDE)


def test_missing_heads_name_the_package(monkeypatch, tmp_path):
    _, file = random_trunk("alex", tmp_path)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'fastgen-diffusion\[eval\]'"):
        lpips_measure(f"alex={file}", side=SIDE)
