"""The command line: every command parses, calls the function of the same name, and maps errors to exit codes.

0 done, 1 something is wrong with the data, 2 the input is wrong, 75 stopped by a signal after saving its work.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastgen import __version__
from fastgen.bank.class_names import read_class_names
from fastgen.cli_bank import bank
from fastgen.cli_cluster import add_cluster_commands
from fastgen.cli_compare import compare
from fastgen.cli_dataset import dataset
from fastgen.cli_finetune import finetune
from fastgen.cli_parts import AnyPath, Commands, ExistingFile, ExistingFolder
from fastgen.cli_shards import add_shards_commands
from fastgen.cli_train import add_train_commands
from fastgen.errors import DataError
from fastgen.job import StopSignal


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastgen")
def main() -> None:
    """Generate synthetic training images offline: bank -> plan -> engine -> shards -> train."""


main.add_command(bank)
main.add_command(finetune)
main.add_command(dataset)
main.add_command(compare)


@main.command()
@click.option("--model", default="mini", show_default=True, help="Embedded model, folder, hub id or checkpoint.")
@click.option("--config", help="Of a checkpoint: folder or hub id with its configs; default: diffusers' choice.")
@click.option("--vae", help="Folder or hub id of a VAE that replaces the model's own.")
@click.option("--ip-adapter", type=ExistingFile, help="IP-Adapter (base or plus); default: the model folder's own.")
@click.option("--lora", multiple=True, metavar="NAME=PATH[@SCALE]", help="LoRA to fuse; may be repeated.")
@click.option("--embedding", multiple=True, metavar="NAME=PATH", help="Textual-inversion word, or a folder of them.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Or openvino (CPU), tensorrt, torch.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 or bf16.")
@click.option("--compile", is_flag=True, help="Of torch: fuse kernels; faster on a GPU, minutes to start.")
@click.option("--batch", type=int, default=8, show_default=True, help="Rows of every execution.")
@click.option("--size", type=int, help="Side of the images in pixels; default: the model's own.")
@click.option("--provider", default="auto", show_default=True, help="Where ONNX Runtime computes: auto, cpu or cuda.")
@click.option("--out", type=AnyPath, help="Engine folder; default: a folder under engines/.")
def build(**options: Any) -> None:
    """Export a model with its adapters to an engine folder, and check it against torch."""
    from fastgen.engine.build import build as build_engine

    click.echo(build_engine(**options, say=lambda line: click.echo(line, err=True)))


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that decide which rows there are, shared by `run` and `plan`."""
    for option in reversed(
        (
            click.option("--bank", required=True, type=ExistingFile, help="The bank, a JSONL file."),
            click.option("--engine", help="Engine folder, or its name under engines/; default: the only one there."),
            click.option("--refs", help="Folder of reference images, or petworld; default: as the bank says."),
            click.option("--shots", type=int, help="References per class; default: as the bank says."),
            click.option("--policy", help="ags, uniform or a number for every lambda; default: as the bank says."),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of the run."),
            click.option("--steps", type=int, help="Denoising steps; default: the row's or the model's."),
            click.option("--guidance", type=float, help="Guidance scale; default: the row's or the model's."),
            click.option("--guidance-interval", metavar="LO-HI", help="Guidance between these shares of the schedule."),
            click.option("--scheduler", help="diffusers scheduler; default: the row's or the model's."),
            click.option("--limit", type=int, help="Stop after this many rows."),
            click.option("--clip", help="Scoring CLIP: a folder, or NAME=WEIGHTS; default: the model's own."),
            click.option("--profile", help="dalda-paper or dalda-official; default: as the bank says."),
        )
    ):
        command = option(command)
    return command


@main.command()
@plan_options
@click.option("--out", type=AnyPath, help="Output folder; default: out/<bank name>.")
@click.option("--rank", type=int, help="This process's number; default: from SLURM, else 0.")
@click.option("--world", type=int, help="Number of processes that share the bank; default: from SLURM, else 1.")
@click.option("--batch", type=int, help="Rows denoised together; default: the engine's. Changes no image.")
@click.option("--provider", default="auto", show_default=True, help="Where ONNX Runtime computes: auto, cpu or cuda.")
@click.option("--shard-size", type=int, default=256, show_default=True, help="Rows per shard.")
def run(**options: Any) -> None:
    """Generate the images of a bank into HDF5 shards; run it again to finish what is missing."""
    with StopSignal() as stop:  # the libraries take seconds to load, and a signal may come meanwhile
        from fastgen.production.run import run as run_bank
    stop.check()
    report = run_bank(**options)
    if report.failed:
        raise DataError(f"{report.failed} rows failed; their shards say why (status), and every other row is saved")


@main.command()
@plan_options
def plan(**options: Any) -> None:
    """Print the resolved rows that `run` would generate, as JSONL, without generating."""
    from fastgen.production.run import plan as plan_bank

    for row in plan_bank(**options):
        click.echo(json.dumps(row.to_json(), ensure_ascii=False))


@main.command()
@click.argument("folder", type=ExistingFolder)
@click.option("--model", help="Vision-language model: its name at the endpoint, or a local transformers folder.")
@click.option("--captioner", help="Instead of a model: petworld (its ground truth), or a JSONL file to check.")
@click.option("--out", type=AnyPath, help="The captions to write; default: FOLDER.captions.jsonl.")
@click.option("--attributes", default="background,pose", show_default=True, help="What to ask for, with commas.")
@click.option("--descriptor", default="object", show_default=True, help="Noun for what the data set shows.")
@click.option("--base-url", help="OpenAI-compatible API, such as http://localhost:8000/v1; default: OpenAI's.")
@click.option("--key-env", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the key.")
@click.option("--side", type=int, default=1024, show_default=True, help="Longest side in pixels that is sent.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="Of the first question, 0 to 2.")
@click.option("--concurrency", type=int, default=4, show_default=True, help="Requests at once. Changes no caption.")
@click.option("--cache", type=AnyPath, help="Folder of answers, so that a rerun costs nothing; default: OUT.cache.")
@click.option("--skip", is_flag=True, help="Leave out images without a usable answer.")
def caption(folder: Path, attributes: str, **options: Any) -> None:
    """Describe background and pose of real images by a vision-language model; run it again to go on."""
    from fastgen.caption.command import caption as caption_images

    names = [name.strip() for name in attributes.split(",")]
    click.echo(caption_images(folder, attributes=names, **options, say=lambda line: click.echo(line, err=True)))


@main.command("import")
@click.argument("folder", type=ExistingFolder)
@click.option("--out", required=True, type=AnyPath, help="The output folder to write.")
@click.option("--classes", type=ExistingFile, help="Text file with one class name per line; default: the folders.")
@click.option("--method", default="import", show_default=True, help="What made the images, such as datadream.")
@click.option("--template", default="a photo of a {class}", show_default=True, help="Prompt of the images.")
@click.option("--size", type=int, help="Side in pixels; default: that of the images, which must all have one.")
@click.option("--shard-size", type=int, default=256, show_default=True, help="Images per shard.")
def import_(folder: Path, classes: Path | None, **options: Any) -> None:
    """Turn a folder of synthetic images, a folder per class, into an output folder of shards."""
    from fastgen.production.import_images import import_images

    names = None if classes is None else read_class_names(classes)
    click.echo(import_images(folder, classes=names, **options, say=lambda line: click.echo(line, err=True)))


@main.command()
@click.argument("out", type=ExistingFolder)
@click.option("--repair", is_flag=True, help="Move what is damaged to OUT/damaged; fastgen run then makes it again.")
def verify(out: Path, repair: bool) -> None:
    """Check an output folder: every row once, every image undamaged. Exit code 1 lists what is wrong."""
    from fastgen.shards.repair import repair as repair_output
    from fastgen.shards.verify import verify as verify_output

    done = repair_output(out) if repair else None
    problems = verify_output(out) if done is None else done.problems
    if not problems:
        click.echo(f"{out}: every planned row is there once and undamaged")
        return
    lines = [f"{out}: {len(problems)} problems", *(f"  {line}" for line in problems)]
    if done is not None:
        lines += [f"moved to {done.folder}: {', '.join(done.moved) or 'nothing'}"]
        lines += ["Run the same `fastgen run` command again: it makes what is missing now, and nothing else"]
    raise DataError("\n".join(lines))


@main.command()
@click.argument("shard", metavar="SHARD:ROW")
@click.option("--engine", help="Engine folder, or its name under engines/; default: the one that made the shard.")
@click.option("--refs", help="Folder of reference images, or petworld; default: as the run's.")
@click.option("--provider", default="auto", show_default=True, help="Where ONNX Runtime computes: auto, cpu or cuda.")
@click.option("--out", type=AnyPath, help="PNG to write: the stored image beside the new one.")
def regenerate(shard: str, **options: Any) -> None:
    """Make one image of a shard again (ROW: its place from 0, or its id) and compare it with the stored one."""
    from fastgen.production.regenerate import regenerate as regenerate_row

    found = regenerate_row(shard, **options)
    if not found.is_identical:
        raise DataError(str(found))
    click.echo(found)


@main.command()
@click.argument("out", type=ExistingFolder)
@click.option("--to", type=AnyPath, help="Folder for the pictures; default: OUT/inspect.")
@click.option("--rows", type=int, default=24, show_default=True, help="Images on the contact sheet.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
def inspect(out: Path, **options: Any) -> None:
    """Show an output folder: contact sheet, histograms of score and lambda, and a table of the classes."""
    from fastgen.evaluate.inspect import inspect as inspect_output
    from fastgen.production.references import reference_loader

    inspection = inspect_output(out, load_reference=reference_loader(out), **options)
    for path in (inspection.contact_sheet, inspection.histograms):
        click.echo(path)


@main.command()
@click.argument("out", type=ExistingFolder)
@click.option("--clip", help="CLIP of CLIP-I: a folder, or NAME=WEIGHTS; default: the embedded one.")
@click.option("--lpips", metavar="NET[=FILE]", help="alex or vgg; default: resnet_distance, which needs no download.")
@click.option("--real", type=ExistingFolder, help="Real images, a folder per class: adds FID per class.")
@click.option("--captions", type=ExistingFile, help="Backgrounds and poses of real images: adds the context probe.")
@click.option("--probe", type=ExistingFolder, help="Folder of the captions' images; default: --real.")
@click.option("--features", help="mini-resnet (FID's default), clip (the probe's) or inception=FILE.")
@click.option("--fid-images", type=int, help="Most images per class that FID takes; default: all.")
@click.option("--to", type=AnyPath, help="Folder for report.json and the plots; default: OUT/evaluate.")
def evaluate(out: Path, **options: Any) -> None:
    """Measure diversity and closeness to the references (CLIP-I, LPIPS); write report.json and plots."""
    from fastgen.evaluate.evaluate import evaluate as evaluate_output
    from fastgen.production.references import reference_loader

    report = evaluate_output(out, load_reference=reference_loader(out), **options)
    for name in ("report.json", *(f"{measure}.png" for measure in report["encoders"]), "scores.png"):
        click.echo((options["to"] or out / "evaluate") / name)


@main.command("filter")
@click.argument("out", type=ExistingFolder)
@click.option("--descriptor", required=True, help="Noun for what the images should show, such as bird.")
@click.option("--clip", help="CLIP: a folder, or NAME=WEIGHTS; default: the embedded one.")
@click.option("--percentile", type=float, default=10.0, show_default=True, help="Images below it are left out.")
@click.option("--to", type=AnyPath, help="The file to write; default: OUT/filter.jsonl.")
def filter_(out: Path, **options: Any) -> None:
    """Write which images show what they should, by a CLIP, for `fastgen train --keep`."""
    from fastgen.evaluate.clip_filter import filter_images

    click.echo(filter_images(out, **options, say=lambda line: click.echo(line, err=True)))


@main.command()
@click.argument("out", type=AnyPath)
@click.option("--classes", default="oxford", show_default=True, help="oxford, novel, or names with commas.")
@click.option("--split", default="balanced", show_default=True, help="balanced, few-shot, long-tail, confounded.")
@click.option("--per-class", type=int, default=20, show_default=True, help="Training images per class.")
@click.option("--shots", type=int, default=1, show_default=True, help="Training images per class of few-shot.")
@click.option("--test-per-class", type=int, default=10, show_default=True, help="Test images per class.")
@click.option("--imbalance", type=float, default=100.0, show_default=True, help="Largest over smallest class.")
@click.option("--confounding", type=float, default=0.9, show_default=True, help="Share in the class's own place.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the pictures.")
def petworld(out: Path, classes: str, **options: Any) -> None:
    """Export PetWorld pictures with captions and ground truth as an image folder."""
    from fastgen.petworld.dataset import export

    names = classes if classes in ("oxford", "novel") else [name.strip() for name in classes.split(",")]
    click.echo(export(out, classes=names, **options, say=lambda line: click.echo(line, err=True)))


@main.command()
@click.option("--out", type=AnyPath, default=Path("out/demo"), show_default=True, help="Folder of the demo.")
@click.option("--bank", type=ExistingFile, default=Path("prompts/pets.jsonl"), show_default=True, help="The bank.")
@click.option("--limit", type=int, help="Generate only this many images.")
def demo(**options: Any) -> None:
    """Build the embedded model, run a bank, verify, train with and without synthetic images, and report."""
    from fastgen.demo import demo as run_demo

    run_demo(**options)


add_train_commands(main)
add_cluster_commands(main)
add_shards_commands(main)


if __name__ == "__main__":
    main()
