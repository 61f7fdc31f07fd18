"""Schedulers by short name: diffusers' own classes, made from the engine's scheduler config."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastgen.errors import FastgenError

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddim_trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmsolver++_karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
"""Name in a row -> class of diffusers, and what is set beside the engine's own config. The name of a class stands for
the first entry that has it. Few-step LoRAs come with their own: LCM with lcm, Hyper-SD with tcd, and Hyper-SD's 8-step
CFG LoRA with ddim_trailing."""

INVERSE = "ddim_inverse"
"""DDIM run backwards: for the start latents of mode latent, not for rows."""

SEEDED = ("euler_a", "lcm", "tcd")
"""Schedulers that draw noise at every step; it comes from the row's own generator."""


def scheduler_name(name: str | None, config: Mapping[str, Any]) -> str:
    """Return the name to write into a row: the one given, or that of the engine's own scheduler (else
    "ddim").

    Args:
        name: as in a row: a key of SCHEDULERS or a class of diffusers in it; or None.
        config: the engine's scheduler config, with `_class_name`.

    Raises:
        FastgenError: there is no such scheduler.
    """
    if name is None:
        return _short(config.get("_class_name")) or "ddim"
    found = _short(name)
    if found is None:
        raise FastgenError(f"scheduler: got {name!r}; allowed: {', '.join(SCHEDULERS)}")
    return found


def _short(name: str | None) -> str | None:
    """The key of SCHEDULERS that a name means; None when it means none."""
    if name in SCHEDULERS:
        return name
    return next((short for short, (kind, _) in SCHEDULERS.items() if kind == name), None)


def is_scheduler(name: str) -> bool:
    """Whether rows may ask for that scheduler."""
    return _short(name) is not None


class Schedule:
    """One scheduler set to a number of steps, at its first step. Make a new one for every batch: solvers
    remember.

    Attributes:
        timesteps: of the steps that are run, in order; int64 or float32 (S,), on the CPU.
        shares: how much of the whole schedule lies before each of them, 0 up to less than 1.
    """

    def __init__(self, name: str, config: Mapping[str, Any], *, steps: int, strength: float | None = None) -> None:
        """Set up the scheduler.

        Args:
            name: as in a row, or INVERSE for the way from an image to noise.
            config: the engine's scheduler config.
            steps: denoising steps of the whole schedule, >= 1.
            strength: for img2img: run only the last int(steps * strength) steps; None runs all.

        Raises:
            FastgenError: no such scheduler, or it cannot be set to that many steps.
        """
        import diffusers

        self.name = name if name == INVERSE else scheduler_name(name, config)
        kind, extra = ("DDIMInverseScheduler", {}) if name == INVERSE else SCHEDULERS[self.name]
        try:
            self._scheduler = _make(getattr(diffusers, kind), config, extra)
            self._scheduler.set_timesteps(steps)
        except (ValueError, IndexError) as error:
            raise FastgenError(f"scheduler {name!r} with {steps} steps: {error}") from error
        self.timesteps: Tensor = self._scheduler.timesteps
        total = len(self.timesteps)
        self.shares = [number / total for number in range(total)]
        if strength is not None:
            first = max(steps - executed_steps(steps, strength), 0) * self._scheduler.order
            self.timesteps, self.shares = self.timesteps[first:], self.shares[first:]
            if hasattr(self._scheduler, "set_begin_index"):
                self._scheduler.set_begin_index(first)

    @property
    def start_scale(self) -> float:
        """Standard deviation that unit noise must be given before the first step."""
        return float(self._scheduler.init_noise_sigma)

    def add_noise(self, clean: "Tensor", noise: "Tensor") -> "Tensor":
        """Bring clean latents to the noise level of the first step that is run; all (B, C, h, w)."""
        return self._scheduler.add_noise(clean, noise, self.timesteps[:1].repeat(len(clean)))

    def scale_input(self, latents: "Tensor", timestep: "Tensor") -> "Tensor":
        """What the UNet is to see of the latents at this step."""
        return self._scheduler.scale_model_input(latents, timestep)

    def step(self, noise: "Tensor", timestep: "Tensor", latents: "Tensor", *, generators: list[Any]) -> "Tensor":
        """Latents after one step.

        Args:
            noise: the UNet's output (B, C, h, w).
            timestep: a number of `timesteps`, in their order.
            latents: before the step (B, C, h, w).
            generators: one torch.Generator per row, for the schedulers in SEEDED.
        """
        extra = {"generator": generators} if self.name in SEEDED else {}
        return self._scheduler.step(noise, timestep, latents, return_dict=False, **extra)[0]


def _make(kind: Any, config: Mapping[str, Any], extra: dict[str, Any]) -> Any:
    """What `kind.from_config` makes of the config, with `extra` set.

    That method imports every class that could read the same config, and with them scipy: 0.7 s in the first batch of
    every process, and 11 ms in each of the others.
    """
    accepted = inspect.signature(kind.__init__).parameters.keys() - set(config.get("_use_default_values", ()))
    return kind(**{key: value for key, value in config.items() if key in accepted} | extra)


def executed_steps(steps: int, strength: float) -> int:
    """Steps that img2img runs of a schedule, as in diffusers."""
    return min(int(steps * strength), steps)
