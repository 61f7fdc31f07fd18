"""The bank commands of DALDA's baselines, and the options that its banks share; `cli.py` adds them to its group."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastgen.bank.class_names import read_class_names

Command = Callable[..., Any]

ExistingFile = click.Path(exists=True, dir_okay=False, path_type=Path)
AnyPath = click.Path(path_type=Path)


def defaults_option(command: Command) -> Command:
    """Add `--default`, whose values reach the command as one dict `defaults`."""

    def read(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
        from fastgen.bank.defaults import parse_defaults

        return parse_defaults(texts)

    help_text = "Header default, as in steps=25 or ags.sampler=clipnorm; may be repeated."
    add = click.option("--default", "defaults", multiple=True, metavar="NAME=VALUE", callback=read, help=help_text)
    return add(command)


def dalda_options(profile: str | None = "dalda-paper") -> Callable[[Command], Command]:
    """Options of every bank that DALDA generates from: `--profile` and `--default`."""
    shown = profile is not None
    help_text = "dalda-paper or dalda-official: what the header says where paper and code differ."
    add = click.option("--profile", default=profile, show_default=shown, help=help_text)
    return lambda command: add(defaults_option(command))


def _baseline_options(command: Command) -> Command:
    """Options of the img2img baselines."""
    for option in reversed(
        (
            click.option("--classes", required=True, type=ExistingFile, help="Text file with one class name per line."),
            click.option("--out", required=True, type=AnyPath, help="The bank to write."),
            click.option("--shots", type=int, default=1, show_default=True, help="References per class."),
            click.option("--images-per-ref", type=int, default=10, show_default=True, help="Images per reference."),
            click.option("--refs", help="References the bank names: a folder beside it, or petworld."),
            defaults_option,
        )
    ):
        command = option(command)
    return command


@click.command("real-guidance")
@_baseline_options
@click.option("--strength", default="0.5", show_default=True, help="Share of the schedule, or by_shots.")
def real_guidance(classes: Path, out: Path, **options: Any) -> None:
    """Write the bank of Real Guidance: img2img from every reference, "a photo of a <name>"."""
    from fastgen.bank.img2img import write_real_guidance_bank

    click.echo(write_real_guidance_bank(read_class_names(classes), out, **options))


@click.command("da-fusion")
@_baseline_options
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the strengths: 1, 0.75, 0.5 or 0.25.")
def da_fusion(classes: Path, out: Path, **options: Any) -> None:
    """Write the bank of DA-Fusion: img2img with one learned word per class, which the engine must have."""
    from fastgen.bank.img2img import write_da_fusion_bank

    click.echo(write_da_fusion_bank(read_class_names(classes), out, **options))


@click.command()
@click.argument("bank", type=ExistingFile)
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--shots", type=int, default=1, show_default=True, help="References per class that get sentences.")
@click.option("--images-per-ref", type=int, help="Images per reference; default: one for each of its sentences.")
@click.option("--prompts-per", default="class", show_default=True, help="Whose sentences they are: class or reference.")
@click.option("--seed", type=int, default=0, show_default=True, help="Shuffles the sentences of each reference.")
def deal(bank: Path, out: Path, **options: Any) -> None:
    """Deal a bank's sentences out to the references: how many each one gets, shared or its own."""
    from fastgen.bank.deal import deal_bank

    click.echo(deal_bank(bank, out, **options))


def add_baselines(group: click.Group) -> None:
    """Add the commands to `fastgen bank`."""
    for command in (real_guidance, da_fusion, deal):
        group.add_command(command)
