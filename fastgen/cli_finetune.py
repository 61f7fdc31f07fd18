"""The command group `fastgen finetune`."""

from pathlib import Path
from typing import Any

import click

ExistingFile = click.Path(exists=True, dir_okay=False, path_type=Path)
ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)
AnyPath = click.Path(path_type=Path)


def say(line: str) -> None:
    """Write a line to standard error."""
    click.echo(line, err=True)


@click.group()
def finetune() -> None:
    """Teach the generator the classes of a few pictures."""


@finetune.command()
@click.option("--real", required=True, type=ExistingFolder, help="Pictures: one folder per class.")
@click.option("--out", required=True, type=AnyPath, help="Folder for the LoRA, its log and samples.")
@click.option("--model", default="mini", show_default=True, help="As for fastgen build.")
@click.option("--profile", default="bob", show_default=True, help="bob, datadream, diff-mix or real-fake.")
@click.option("--captions", type=ExistingFile, help="Attributes (JSONL); default: captions.jsonl of the folder.")
@click.option("--descriptor", help="Noun of the data set, such as pet or bird; '' for none.")
@click.option("--preserve/--no-preserve", default=None, help="Background and pose in the captions, or neither.")
@click.option("--template", help="Another caption, such as 'a photo of a {class}'.")
@click.option("--article", help="literal (as BOB: a aircraft) or fix (an aircraft).")
@click.option("--scope", help="dataset: one LoRA for all; class: one for each.")
@click.option("--shots", type=int, help="Pictures per class; default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything.")
@click.option("--epochs", type=int, help="Default: the profile's (bob: 400).")
@click.option("--steps", type=int, help="In place of epochs.")
@click.option("--batch", type=int, help="Pictures of a step; default: the profile's (bob: 80).")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Pieces of a step: less memory.")
@click.option("--lr", type=float, help="Peak learning rate; default: the profile's (bob: 1e-4).")
@click.option("--schedule", help="cosine or constant.")
@click.option("--warmup", type=int, help="Steps of linear growth; default: the profile's (bob: 100).")
@click.option("--rank", type=int, help="Of the LoRA; default: the profile's (bob: 16).")
@click.option("--alpha", type=float, help="Of the LoRA; default: its rank.")
@click.option("--text-encoder/--no-text-encoder", default=None, help="A LoRA for the text encoder too.")
@click.option("--words/--no-words", default=None, help="Learn a word <class_name> per class with the LoRA.")
@click.option("--init-word", help="What such words start from.")
@click.option("--fit", help="crop (at random) or squash, to the model's size.")
@click.option("--flip/--no-flip", default=None, help="Mirror at random.")
@click.option("--min-snr", type=float, help="Gamma of min-SNR weights, such as 5.")
@click.option("--dist-match", type=float, help="Weight of Real-Fake's matching term, such as 0.003.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 (GPU) or bf16.")
@click.option("--save-every", type=int, default=100, show_default=True, help="Steps between two checkpoints.")
@click.option("--sample-every", type=int, help="Steps between two grids of samples; 0: none; default: five grids.")
@click.option("--vae", help="Folder or hub id of a VAE that replaces the model's own.")
@click.option("--size", type=int, help="Side of the pictures in pixels; default: the model's own.")
def lora(real: Path, **options: Any) -> None:
    """Fine-tune a LoRA for UNet and text encoder; run it again to go on. Several processes: accelerate launch."""
    from fastgen.finetune.lora import lora as finetune_lora

    click.echo(finetune_lora(real, **options, say=say))


@finetune.command("textual-inversion")
@click.option("--real", required=True, type=ExistingFolder, help="Pictures: one folder per class.")
@click.option("--out", required=True, type=AnyPath, help="Folder for one file per class, its log and samples.")
@click.option("--model", default="mini", show_default=True, help="As for fastgen build.")
@click.option("--shots", type=int, help="Pictures per class; default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Per class.")
@click.option("--batch", type=int, default=4, show_default=True, help="Pictures of a step.")
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Rate: DA-Fusion's 5e-4, times its batch.")
@click.option("--init-word", default="the", show_default=True, help="What the new words start from.")
@click.option("--fit", default="squash", show_default=True, help="crop (at random) or squash, to the model's size.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror at random.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 (GPU) or bf16.")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Pieces of a step: less memory.")
@click.option("--save-every", type=int, default=100, show_default=True, help="Steps between two checkpoints.")
@click.option("--samples/--no-samples", default=True, show_default=True, help="Draw samples.png at the end.")
@click.option("--vae", help="Folder or hub id of a VAE that replaces the model's own.")
@click.option("--size", type=int, help="Side of the pictures in pixels; default: the model's own.")
def textual_inversion(real: Path, **options: Any) -> None:
    """Learn one word <class_name> per class from its pictures (DA-Fusion); run it again to go on."""
    from fastgen.finetune.textual_inversion import textual_inversion as learn_words

    click.echo(learn_words(real, **options, say=say))
