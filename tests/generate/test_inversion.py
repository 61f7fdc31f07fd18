"""Start latents of mode latent: diffusers' own inversion, and the circle of Diff-II."""

import math

import pytest
import torch

from fastgen.generate.inversion import on_circle

THETA = 1.1


@pytest.fixture
def pair():
    first = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    second = 3 * torch.tensor([[math.cos(THETA), math.sin(THETA)], [0.0, 0.0]])
    return first, second


def test_ends_of_the_slerp_are_the_two_latents(pair):
    first, second = pair
    assert torch.allclose(on_circle(first, second, alpha=0.0), first)
    assert torch.allclose(on_circle(first, second, alpha=-1.0), second, atol=1e-6)


def test_equals_the_formula_of_the_slerp_between_them(pair):
    first, second = pair
    t = 0.3
    slerp = math.sin((1 - t) * THETA) / math.sin(THETA) * first + math.sin(t * THETA) / math.sin(THETA) * second
    assert torch.allclose(on_circle(first, second, alpha=-t), slerp, atol=1e-6)


def test_a_turn_goes_once_around(pair):
    first, second = pair
    assert torch.allclose(on_circle(first, second, alpha=None, turn=0.0), first)
    assert torch.allclose(on_circle(first, second, alpha=None, turn=0.5), -first, atol=1e-5)
    unit = [x / x.norm() for x in pair]
    points = [on_circle(*unit, alpha=None, turn=k / 16) for k in range(16)]
    assert torch.allclose(torch.stack([p.norm() for p in points]), torch.ones(16), atol=1e-5)
    assert torch.allclose(torch.stack(points).mean(0), torch.zeros(2, 2), atol=1e-5)


def test_one_picture_alone_is_its_own_inversion(pair):
    first, _ = pair
    assert (on_circle(first, first, alpha=None, turn=0.3) == first).all()
    assert torch.isfinite(on_circle(first, -first, alpha=None, turn=0.3)).all()
