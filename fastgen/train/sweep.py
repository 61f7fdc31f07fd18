"""`fastgen sweep`: choose learning rate and the like on validation images, then train with the winner."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastgen.errors import FastgenError
from fastgen.files import atomic_write_text
from fastgen.job import Job, job_share
from fastgen.train.command import arms_of, check_numbers, start, write_results
from fastgen.train.material import Material
from fastgen.train.recipe import Recipe, with_settings
from fastgen.train.recipes import GRIDS, grid_points
from fastgen.train.sampling import BOTH
from fastgen.train.trial import Trial
from fastgen.train.trial_store import TrialStore, read_trial

SWEEP_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One trial that a sweep needs: a recipe, an arm and a seed."""

    recipe: Recipe
    arm: str
    seed: int


def sweep(
    real: str | Path,
    *,
    out: str | Path,
    val: str | Path | int,
    synthetic: str | Path | None = None,
    keep: str | Path | None = None,
    test: str | Path | None = None,
    backbone: str = "mini-resnet",
    recipe: str = "bob",
    shots: int | None = None,
    imbalance: float | None = None,
    groups: tuple[int, int] | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    sweep_epochs: int = 10,
    seeds: int = 1,
    synthetic_only: bool = False,
    settings: Mapping[str, Any] | None = None,
    rank: int | None = None,
    world: int | None = None,
    cache: str | Path | None = None,
) -> dict[str, Any] | None:
    """Trains every point of a grid briefly, and the winner of each arm in full (BOB, section 2.6 of its card).

    An arm's winner is the point whose best macro accuracy on the validation images is the highest, the first of
    equals. It is trained anew with the recipe's own length and tested at its best validation step. Every trial is
    a file under `out`/trials: a second call does only what is missing, and several processes share the work.

    Args:
        real: as `train`.
        out: as `train`; sweep.json comes beside metrics.json.
        val: as `train`; the sweep chooses on it.
        synthetic: as `train`.
        keep: as `train`.
        test: as `train`.
        backbone: as `train`.
        recipe: as `train`; its grid is the paper's.
        shots: as `train`.
        imbalance: as `train`.
        groups: as `train`.
        grid: field -> values, which replace or add to those of the recipe's grid.
        sweep_epochs: length of the trials that choose.
        seeds: number of seeds of the final trainings; the trials that choose have seed 0.
        synthetic_only: as `train`.
        settings: as `train`.
        rank: this process's number; None takes SLURM's, else 0.
        world: number of processes that share the trials; None takes SLURM's, else 1.
        cache: as `train`.

    Returns:
        the content of metrics.json, or None while trials of other processes are missing.

    Raises:
        FastgenError: as `train`, or if there is no grid.
    """
    check_numbers(seeds=seeds, shots=shots, groups=groups, sweep_epochs=sweep_epochs)
    job = job_share(rank, world)
    material, chosen = start(
        real, out=out, synthetic=synthetic, keep=keep, test=test, val=val, backbone=backbone, recipe=recipe,
        shots=shots, imbalance=imbalance, cache=cache, changes=settings or {},
    )  # fmt: skip
    searched = _grid(recipe, material, grid or {}, fixed=settings or {})
    search = Search(
        recipe=replace(chosen, select="best_on_val"), grid=searched, epochs=sweep_epochs,
        arms=arms_of(material, synthetic_only), store=TrialStore(Path(out) / "trials", material.identity),
    )  # fmt: skip
    if not _finish(search.choosing(), material, search.store, job):
        return None
    winners = search.winners()
    final = [Work(recipe=winners[arm], arm=arm, seed=seed) for arm in search.arms for seed in range(seeds)]
    if not _finish(final, material, search.store, job):
        return None
    trials: dict[str, list[Trial]] = {arm: [] for arm in search.arms}
    for work in final:
        trials[work.arm].append(search.trial(work))
    report = search.report(winners)
    atomic_write_text(Path(out) / "sweep.json", json.dumps({"fastgen_sweep": SWEEP_VERSION, **report}, indent=1) + "\n")
    about = {"shots": shots, "seeds": seeds, "recipe": recipe, "val": str(val), "imbalance": imbalance}
    return write_results(
        Path(out), material, material.problem(winners[search.arms[-1]]), trials,
        groups=groups, settings={**about, "groups": groups}, sweep=report["winners"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The trials that choose, and what they say.

    Attributes:
        recipe: with the full length.
        grid: field -> values that are searched.
        epochs: length of the trials that choose; they have seed 0.
        arms: that are trained; each has a winner of its own.
        store: of the trials.
    """

    recipe: Recipe
    grid: Mapping[str, Sequence[float]]
    epochs: int
    arms: Sequence[str]
    store: TrialStore

    def points(self, arm: str) -> list[Recipe]:
        """The short recipes of an arm; only the arm with both has a weight of real images to search."""
        searched = {name: values for name, values in self.grid.items() if name != "real_weight" or arm == BOTH}
        return [with_settings(self.recipe, {**point, "epochs": self.epochs}) for point in grid_points(searched)]

    def choosing(self) -> list[Work]:
        """The trials of all arms."""
        return [Work(recipe=point, arm=arm, seed=0) for arm in self.arms for point in self.points(arm)]

    def trial(self, work: Work) -> Trial:
        """A finished trial."""
        return read_trial(self.store.path(work.recipe, work.seed, arm=work.arm))

    def scores(self, arm: str) -> list[float]:
        """Macro accuracy of every point on the validation images, at its best step."""
        trials = [self.trial(Work(recipe=point, arm=arm, seed=0)) for point in self.points(arm)]
        return [trial.validation.macro if trial.validation else 0.0 for trial in trials]

    def winners(self) -> dict[str, Recipe]:
        """The best point of every arm, the first of equals, with the full length."""
        found = {}
        for arm in self.arms:
            points, scores = self.points(arm), self.scores(arm)
            best = asdict(points[max(range(len(points)), key=scores.__getitem__)])
            found[arm] = with_settings(self.recipe, {name: best[name] for name in self.grid})
        return found

    def report(self, winners: Mapping[str, Recipe]) -> dict[str, Any]:
        """The content of sweep.json."""

        def values(recipe: Recipe) -> dict[str, Any]:
            return {name: getattr(recipe, name) for name in self.grid}

        return {
            "grid": {name: list(of_name) for name, of_name in self.grid.items()},
            "epochs": self.epochs,
            "arms": {
                arm: [
                    {**values(point), "validation_macro": score}
                    for point, score in zip(self.points(arm), self.scores(arm), strict=True)
                ]
                for arm in self.arms
            },
            "winners": {arm: values(recipe) for arm, recipe in winners.items()},
        }


def _grid(
    recipe: str, material: Material, grid: Mapping[str, Sequence[float]], *, fixed: Mapping[str, Any]
) -> dict[str, tuple[float, ...]]:
    """The recipe's grid with the user's values; what the user fixed is not searched."""
    named = GRIDS.get(recipe, {}).get(material.backbone.kind, {})
    found = {name: tuple(values) for name, values in {**named, **grid}.items() if name not in fixed}
    if not found or not all(found.values()):
        raise FastgenError(
            f"recipe {recipe} has no grid of its own; give one with --grid, such as --grid lr=1e-3,1e-4"
        )
    if material.children is None:
        found.pop("real_weight", None)
    return found


def _finish(works: Sequence[Work], material: Material, store: TrialStore, job: Job) -> bool:
    """Runs this process's share of the missing trials; whether all of them are there now."""
    for number, work in enumerate(works):
        if number % job.world != job.rank or store.path(work.recipe, work.seed, arm=work.arm).is_file():
            continue
        trial = store.run(material.problem(work.recipe), work.seed, arm=work.arm)
        score = trial.validation.macro if trial.validation else trial.accuracy.macro
        print(
            f"trial {number + 1} of {len(works)}, {work.arm}, seed {work.seed}: validation {100 * score:.1f} % at step "
            f"{trial.step} of {trial.steps}",
            file=sys.stderr,
        )
    missing = [w for w in works if not store.path(w.recipe, w.seed, arm=w.arm).is_file()]
    if missing:
        print(f"{len(missing)} of {len(works)} trials are other processes'; run the same command again when they are "
              "finished", file=sys.stderr)  # fmt: skip
    return not missing
