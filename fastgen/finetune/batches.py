"""What is drawn by chance in a step, as a function of the seed and the step's number alone.

So a run that was killed goes on with exactly what it would have drawn, and neither accumulation nor the number of
processes changes a draw: a step's batch is drawn whole, and then divided.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgen.seeds import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The batches of a fine-tuning.

    Attributes:
        count: pictures, N.
        batch: pictures of a step; the last step of an epoch has what is left.
        repeats: an epoch sees every picture so often; more than 1 lets few pictures fill a batch.
        seed: of everything.
    """

    count: int
    batch: int
    repeats: int = 1
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture is seen `repeats` times."""
        return -(-self.count * self.repeats // self.batch)

    def indices(self, step: int) -> np.ndarray:
        """Pictures of a step, int64 (B,) in 0..N-1."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self.stream("epoch", epoch).permutation(self.count * self.repeats) % self.count
        return order[place * self.batch : (place + 1) * self.batch]

    def stream(self, purpose: str, step: int) -> np.random.Generator:
        """The generator of one purpose in one step."""
        return stream(self.seed, f"finetune {purpose} {step}")

    def noise(self, step: int, rows: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Draw what the VAE's posterior and the noising of a step's rows need.

        Returns:
            Two tensors of unit variance, float32 (rows, *shape), on the CPU as in diffusers' own sampling.
        """
        seed = int(self.stream("noise", step).integers(2**63))
        generator = torch.Generator("cpu").manual_seed(seed)
        both = torch.randn(2, rows, *shape, generator=generator)
        return both[0], both[1]

    def timesteps(self, step: int, rows: int, count: int) -> Tensor:
        """Draw timesteps uniformly from 0..count-1, int64 (rows,)."""
        return torch.from_numpy(self.stream("timestep", step).integers(count, size=rows))
