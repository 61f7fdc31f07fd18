"""The commands that train classifiers: `fastgen train` and `fastgen sweep`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

ExistingFile = click.Path(exists=True, dir_okay=False, path_type=Path)
ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)
AnyPath = click.Path(path_type=Path)


def add_train_commands(group: click.Group) -> None:
    """Adds both to the command line."""
    group.add_command(train)
    group.add_command(sweep)


class Settings(click.ParamType):
    """KEY=VALUE, a field of a recipe; the value is read by the recipe itself."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Splits at the first =."""
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"got {value!r}; it must be KEY=VALUE, such as lr=1e-4", param, ctx)
        return key.strip().replace("-", "_"), text.strip()


class Grid(Settings):
    """KEY=V1,V2,...: numbers of a field that a sweep tries."""

    name = "KEY=V1,V2"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Splits at = and commas."""
        key, text = super().convert(value, param, ctx)
        try:
            return key, tuple(float(number) for number in text.split(","))
        except ValueError:
            self.fail(f"got {value!r}; it must be KEY=V1,V2,... with numbers, such as lr=1e-3,1e-4", param, ctx)


class Groups(click.ParamType):
    """MANY,FEW: two numbers of images."""

    name = "MANY,FEW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Splits at the comma."""
        many, _, few = value.partition(",")
        try:
            return int(many), int(few)
        except ValueError:
            self.fail(f"got {value!r}; it must be two whole numbers, such as 20,5", param, ctx)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `train` and `sweep` share."""
    for option in reversed(
        (
            click.option("--real", required=True, type=ExistingFolder, help="Real images: one folder per class."),
            click.option("--out", required=True, type=AnyPath, help="Folder for metrics.json, trials and weights."),
            click.option("--synthetic", type=ExistingFolder, help="Output folder of `run`; adds the second arm."),
            click.option("--keep", type=ExistingFile, help="File of `filter`: which synthetic images; default: all."),
            click.option("--test", type=ExistingFolder, help="Test images; default: REAL/test, or held-out halves."),
            click.option("--backbone", default="mini-resnet", show_default=True, help="Name, or NAME=PATH."),
            click.option("--shots", type=int, help="Real training images per class; default: all."),
            click.option("--imbalance", type=float, help="Long tail: largest over smallest class; default: off."),
            click.option("--groups", type=Groups(), help="Also accuracy of classes with more / fewer real images."),
            click.option("--synthetic-only", is_flag=True, help="Also an arm without real images."),
            click.option("--set", "settings", type=Settings(), multiple=True, help="A recipe's field; repeatable."),
            click.option("--cache", type=AnyPath, help="Folder of cached features; default: OUT/features."),
        )
    ):
        command = option(command)
    return command


@click.command()
@data_options
@click.option("--val", help="Choose the step on: a folder, N per class of the other real images, or test:N.")
@click.option("--recipe", help="dalda-paper, dalda-official, datadream, bob, mae, FILE.json; default: linear probe.")
@click.option("--tune", help="linear, full or lora (of a CLIP); default: the recipe's.")
@click.option("--seeds", type=int, default=5, show_default=True, help="Number of paired seeds.")
@click.option("--steps", type=int, help="Training steps; default: the recipe's.")
@click.option("--synthetic-probability", type=float, help="Per draw; default: the recipe's, mostly 0.5.")
@click.option("--mix", help="parent, class_uniform, pool_uniform or replicate; default: the recipe's.")
@click.option("--norm", help="own, or half as in DALDA's code; default: the recipe's.")
@click.option("--views", type=int, help="Cached augmented views per image; default: 8.")
def train(settings: Sequence[tuple[str, str]], **options: Any) -> None:
    """Train classifiers on real images, and on real plus synthetic ones; write metrics.json."""
    from fastgen.evaluate.report import accuracy_table
    from fastgen.train.command import train as train_classifiers

    metrics = train_classifiers(options.pop("real"), settings=dict(settings), **options)
    accuracy_table(metrics)


@click.command()
@data_options
@click.option("--val", required=True, help="Images to choose on: a folder, N per class, or test:N.")
@click.option("--recipe", default="bob", show_default=True, help="A recipe with a grid, or one for --grid.")
@click.option("--grid", type=Grid(), multiple=True, help="A field and its values; repeatable. Default: the paper's.")
@click.option("--sweep-epochs", type=int, default=10, show_default=True, help="Length of the trials that choose.")
@click.option("--seeds", type=int, default=1, show_default=True, help="Number of seeds of the final trainings.")
@click.option("--rank", type=int, help="This process's number; default: from SLURM, else 0.")
@click.option("--world", type=int, help="Number of processes that share the trials; default: from SLURM, else 1.")
def sweep(settings: Sequence[tuple[str, str]], grid: Sequence[tuple[str, Any]], **options: Any) -> None:
    """Choose learning rate and the like on validation images, then train and test with the winner."""
    from fastgen.evaluate.report import accuracy_table
    from fastgen.train.sweep import sweep as run_sweep

    metrics = run_sweep(options.pop("real"), settings=dict(settings), grid=dict(grid), **options)
    if metrics is not None:
        accuracy_table(metrics)
