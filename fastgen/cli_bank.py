"""`fastgen bank`: every way to write a bank."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastgen.bank.class_names import read_class_names
from fastgen.cli_baselines import Command, add_baselines, dalda_options
from fastgen.cli_parts import AnyPath, Commands, ExistingFile, ExistingFolder
from fastgen.errors import FastgenError


@click.group(cls=Commands)
def bank() -> None:
    """Write prompt banks."""


@bank.command()
@click.option("--classes", required=True, type=ExistingFile, help="Text file with one class name per line.")
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--template", default="a photo of a {class}", show_default=True, help="Prompt with {class} in it.")
@click.option("--per-class", type=int, default=1, show_default=True, help="Rows per class.")
@click.option("--class-format", help="Class names in prompts: plain or underscore; default: the profile's.")
@dalda_options(profile=None)
def template(classes: Path, **options: Any) -> None:
    """Write a bank with one template prompt per class (with --profile: DALDA's base prompt)."""
    from fastgen.bank.template import write_template_bank

    click.echo(write_template_bank(read_class_names(classes), **options))


@bank.command()
@click.option("--classes", required=True, type=ExistingFile, help="Text file with one class name per line.")
@click.option("--description", required=True, help="The data set in a few sentences: what its pictures show.")
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--model", required=True, help="Model name at the endpoint, or folder of a local transformers model.")
@click.option("--base-url", help="OpenAI-compatible API, such as http://localhost:8000/v1; default: OpenAI's.")
@click.option("--key-env", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the key.")
@click.option("--per-class", type=int, default=10, show_default=True, help="Sentences per class: so many calls.")
@click.option("--batch-classes", type=int, help="Most classes in one request; default: 128.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of sampling, 0 to 2.")
@click.option("--concurrency", type=int, default=4, show_default=True, help="Requests at once. Changes no sentence.")
@click.option("--cache", type=AnyPath, help="Folder of answers, so that a rerun costs nothing; default: OUT.cache.")
@click.option("--refs", help="References the bank names: a folder beside it, or petworld.")
@click.option("--tokenizer", type=ExistingFolder, help="Engine or model whose tokens are counted; default: CLIP's.")
@click.option("--dry-run", is_flag=True, help="Print the messages of one call and ask nothing.")
@dalda_options()
def llm(classes: Path, dry_run: bool, **options: Any) -> None:
    """Write a bank of sentences by a language model (DALDA's prompts); run it again to go on."""
    from fastgen.bank.llm import llm_messages, write_llm_bank

    names = read_class_names(classes)
    if not dry_run:
        click.echo(write_llm_bank(names, **options, say=lambda line: click.echo(line, err=True)))
        return
    for messages in llm_messages(names, description=options["description"], batch_classes=options["batch_classes"]):
        for message in messages:
            click.echo(f"--- {message['role']}\n{message['content']}")


@bank.command("import-dalda")
@click.argument("prompts", type=ExistingFile)
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--refs", help="References the bank names: a folder beside it, or petworld.")
@click.option("--tokenizer", type=ExistingFolder, help="Engine or model whose tokens are counted; default: CLIP's.")
@dalda_options()
def import_dalda(prompts: Path, **options: Any) -> None:
    """Make a bank of the prompt file of DALDA's official code, {class: [sentences]}."""
    from fastgen.bank.dalda_json import import_dalda_bank

    click.echo(import_dalda_bank(prompts, **options, say=lambda line: click.echo(line, err=True)))


add_baselines(bank)


def _with(*options: Command) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help page."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _drawing_options(*, guidance: float, steps: int, scheduler: str) -> Callable[[Command], Command]:
    """Options that the banks of all methods share; the model's own settings go by the name `model`."""
    return _with(
        click.option("--per-class", type=int, help="Images of each class; default: 100, or as the method says."),
        click.option("--budget", type=int, help="Images of each class, real copies included; with --copies."),
        click.option("--copies", type=int, help="How often training repeats each real image; with --budget."),
        click.option("--guidance", default=str(guidance), show_default=True, help="Guidance scale, or model."),
        click.option("--steps", default=str(steps), show_default=True, help="Denoising steps, or model."),
        click.option("--scheduler", default=scheduler, show_default=True, help="diffusers scheduler, or model."),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw and of the noise."),
        click.option("--seed-mode", default="per_row", show_default=True, help="per_row or per_class_reset."),
        click.option("--name", help="Of the bank; default: its file name."),
    )


_real_options = _with(
    click.option("--refs", required=True, help="Real training images: a folder with class folders, or petworld."),
    click.option("--classes", type=ExistingFile, help="Text file with one class name per line; default: the folders."),
    click.option("--shots", type=int, help="Real images per class; default: all."),
    click.option("--superclass", default="", help="Noun that ends every prompt, such as bird."),
    click.option("--token", default="{word}", show_default=True, help="The class in prompts: its word, or {class}."),
    click.option("--lora", help="LoRA of the UNet that every row names: NAME[@SCALE]."),
    click.option("--per-real", type=int, help="Images for each real one, in place of --per-class."),
    click.option("--out", required=True, type=AnyPath, help="The bank to write."),
)


@bank.command()
@click.option("--captions", required=True, type=ExistingFile, help="Backgrounds and poses of the training images.")
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--marginalize", default="dataset", show_default=True, help="Donors: dataset, class or none.")
@click.option("--preserve/--no-preserve", default=True, show_default=True, help="Context in the LoRA's captions?")
@click.option("--none", default="template", show_default=True, help="Of marginalize none: template or own captions.")
@click.option("--pairing", default="joint", show_default=True, help="joint, or independent for comparison only.")
@click.option("--donor-weight", default="image", show_default=True, help="Donors uniform over image or class.")
@click.option("--descriptor", default="", help="Noun for the whole data set, such as aircraft.")
@click.option("--article", default="literal", show_default=True, help='literal: "a aircraft", as trained; or fix.')
@click.option("--template", help="Sentence with {descriptor}, {class} and attributes; default: BOB's.")
@click.option("--lora", help="LoRA of the whole data set that every row names: NAME[@SCALE].")
@click.option("--words/--no-words", default=False, help="Say <class_name>, as finetune lora --words learns it.")
@click.option("--classes", type=ExistingFile, help="Text file with one class name per line; default: the captions'.")
@click.option("--training-captions", type=AnyPath, help="Also write the texts to train the LoRA with (JSONL).")
@click.option("--tokenizer", type=ExistingFolder, help="Engine or model whose tokens are counted; default: CLIP's.")
@_drawing_options(guidance=2.0, steps=50, scheduler="pndm")
def bob(captions: Path, out: Path, template: str | None, **options: Any) -> None:
    """Write BOB's bank: every class in the backgrounds and poses of the whole data set."""
    from fastgen.bank.caption_text import BOB_TEMPLATE
    from fastgen.methods.bob import write_bob_bank

    options["classes"] = _optional_names(options["classes"])
    click.echo(write_bob_bank(captions, out, template=template or BOB_TEMPLATE, **_checked(options), say=_say))


@bank.command()
@click.option("--out", required=True, type=AnyPath, help="The bank to write.")
@click.option("--classes", type=ExistingFile, help="Text file with one class name per line; default: the folders.")
@click.option("--refs", help="Real training images, for the classes and with --budget.")
@click.option("--only", multiple=True, help="A class that gets rows; may be repeated; default: all.")
@click.option("--descriptor", default="", help="Noun for the whole data set, such as aircraft.")
@click.option("--template", help="Sentence with {descriptor} and {class}; default: DataDream's.")
@click.option("--lora", help="LoRA that every row names: NAME[@SCALE]; with {label}, one for each class.")
@_drawing_options(guidance=2.0, steps=50, scheduler="pndm")
def datadream(out: Path, template: str | None, **options: Any) -> None:
    """Write DataDream's bank: one sentence per class, for a LoRA of the data set or of each class."""
    from fastgen.bank.caption_text import PLAIN_TEMPLATE
    from fastgen.methods.datadream import write_datadream_bank

    options["classes"] = _optional_names(options["classes"])
    click.echo(write_datadream_bank(out, template=template or PLAIN_TEMPLATE, **_checked(options), say=_say))


_strength = click.option("--strength", default="0.8", show_default=True, help="Numbers with commas, or uniform.")


@bank.command("diff-aug")
@_real_options
@_strength
@_drawing_options(guidance=7.5, steps=25, scheduler="dpmsolver++")
def diff_aug(**options: Any) -> None:
    """Write Diff-Aug's bank: image to image from real images, with the prompt of their own class."""
    _diff("diff-aug", options)


@bank.command("diff-gen")
@_real_options
@_drawing_options(guidance=7.5, steps=25, scheduler="dpmsolver++")
def diff_gen(**options: Any) -> None:
    """Write Diff-Gen's bank: text to image with the LoRA and words of Diff-Mix."""
    _diff("diff-gen", options)


@bank.command("diff-mix")
@_real_options
@_strength
@click.option("--gamma", type=float, default=0.8, show_default=True, help="The label is strength^gamma of the class.")
@click.option("--soft-scaler", type=float, default=1.0, show_default=True, help="Sum of the label's weights.")
@_drawing_options(guidance=7.5, steps=25, scheduler="dpmsolver++")
def diff_mix(**options: Any) -> None:
    """Write Diff-Mix's bank: image to image from real images of any class, with soft labels."""
    _diff("diff-mix", options)


@bank.command("diff-ii")
@_real_options
@click.option("--suffixes", required=True, type=ExistingFile, help="Text file with one setting per line.")
@click.option("--switch", type=float, default=0.3, show_default=True, help="Early share of steps with the suffix.")
@click.option("--inv-steps", type=int, default=200, show_default=True, help="Steps of the DDIM inversion.")
@_drawing_options(guidance=7.5, steps=25, scheduler="ddim")
def diff_ii(out: Path, suffixes: Path, **options: Any) -> None:
    """Write Diff-II's bank: points on the circle through two inverted images of a class."""
    from fastgen.methods.diff_ii import write_diff_ii_bank

    options["classes"] = _optional_names(options["classes"])
    click.echo(write_diff_ii_bank(out, suffixes=read_class_names(suffixes), **_checked(options), say=_say))


def _diff(method: str, options: dict[str, Any]) -> None:
    from fastgen.methods.diffusion_edit import STRENGTHS, write_diff_bank

    options["classes"] = _optional_names(options["classes"])
    if "strength" in options:
        text = options.pop("strength")
        options["strength"] = STRENGTHS if text == "uniform" else _numbers("--strength", text)
    click.echo(write_diff_bank(method, options.pop("out"), **_checked(options), say=_say))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the text of --guidance, --steps and --scheduler into values; `model` leaves them to the engine."""
    values = dict(options)
    for name, kind in (("guidance", float), ("steps", int), ("scheduler", str)):
        text = values[name]
        try:
            values[name] = None if text == "model" else kind(text)
        except ValueError:
            raise FastgenError(f"got --{name} {text}; allowed: a number, or model") from None
    return values


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise FastgenError(f"got {option} {text}; allowed: numbers with commas, such as 0.5,0.7, or uniform") from None


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _optional_names(path: Path | None) -> list[str] | None:
    return None if path is None else read_class_names(path)
