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


def test_the_angle_is_exact_for_latents_that_lie_close_together_and_for_each_pair_its_own():
    """Card of BOB, mistake 17: from a cosine in float32 this angle is wrong by tens of per cent."""
    generator = torch.Generator().manual_seed(0)
    for theta in (3e-4, 0.8):
        first, other = (torch.randn(4, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
        other -= (other * first).sum() / (first * first).sum() * first
        second = math.cos(theta) * first + math.sin(theta) * other * first.norm() / other.norm()
        middle = on_circle(first.float(), second.float(), alpha=-0.5)
        expected = (first + second) / (2 * math.cos(theta / 2))
        torch.testing.assert_close(middle.double(), expected, rtol=1e-5, atol=1e-5)
        quarter = on_circle(first.float(), second.float(), alpha=None, turn=0.25).double()
        assert float((quarter * first).sum() / (first * first).sum()) == pytest.approx(0, abs=0.02)
        assert float(quarter.norm() / first.norm()) == pytest.approx(1, rel=0.02)


def test_one_picture_alone_is_its_own_inversion(pair):
    first, _ = pair
    assert (on_circle(first, first, alpha=None, turn=0.3) == first).all()
    assert torch.isfinite(on_circle(first, -first, alpha=None, turn=0.3)).all()
