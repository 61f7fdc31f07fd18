"""The hash of a network says whether two have the same weights."""

import torch

from fastgen.weights_hash import weights_sha256


def test_hash_depends_on_the_weights():
    torch.manual_seed(0)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert weights_sha256(first) != weights_sha256(second)
    second.load_state_dict(first.state_dict())
    assert weights_sha256(first) == weights_sha256(second)
