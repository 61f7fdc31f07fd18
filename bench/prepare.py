"""Write down what bench/device.py is to draw, in a process of its own: it loads PyTorch, which takes seconds.

    python bench/prepare.py sd15 FOLDER options.json   # random weights of the true shapes, references, work.json
    python bench/prepare.py mini FOLDER options.json   # the embedded model

Prints one line of JSON: the hardware and the path of work.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bench.hardware import hardware  # noqa: E402
from bench.throughput import make_work, parse  # noqa: E402
from tests.real_shapes import (  # noqa: E402
    image_config,
    meta_parts,
    write_image_encoder,
    write_ip_adapter,
    write_model,
)

PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "numpy")


def describe_machine() -> dict[str, Any]:
    """Hardware and versions."""
    machine = hardware(*PACKAGES)
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        machine |= {"gpu_memory_mib": gpu.total_memory >> 20, "multiprocessors": gpu.multi_processor_count}
        machine |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return machine


def random_model(folder: Path, scale: int) -> tuple[Path, Path]:
    """Stable Diffusion 1.5 and its IP-Adapter with random weights; on a GPU they are made there, in seconds."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = write_model(folder / "sd15", "sd15", scale=scale, half=True)
        adapter = folder / "adapter" / "ip-adapter.safetensors"
        write_image_encoder(adapter.parent / "image_encoder", scale=scale, half=True)
        width = image_config(scale)["projection_dim"]
        write_ip_adapter(adapter, meta_parts("sd15", scale)["unet"], clip_dim=width, plus=False)
    return model, adapter


def main() -> None:
    """Make the model, the references and the list of rows."""
    kind, path, options_path = sys.argv[1:]
    folder, options = Path(path), json.loads(Path(options_path).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--backend", "torch", "--precision", options["precision"], "--steps", str(options["steps"])]
    words += ["--rows", str(options["rows"]), "--batch", str(options["batch"])]
    if kind == "sd15":
        model, adapter = random_model(folder, options["scale"])
        words += ["--model", str(model), "--ip-adapter", str(adapter), "--size", str(options["size"])]
    else:
        words += ["--model", kind]
    work = make_work(parse(words), folder)
    work["build"]["batch"] = 2 * options["batch"]  # guidance: so many rows are one execution of the peers' UNet
    target = folder / "work.json"
    target.write_text(json.dumps(work))
    print(json.dumps({"hardware": describe_machine(), "work": str(target)}), flush=True)


if __name__ == "__main__":
    main()
