"""Two processes of accelerate (gloo, CPU) end with the weights of one."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.colour_squares import make_images, square
from tests.output_folder import make_row, write_output
from tests.tiny_resnet import make_tiny_resnet

SETTINGS = ("transform=none", "optimizer=sgd", "lr=0.05", "batch=7", "real_weight=0.8")


def start(folder, out, rank, world, port):
    """One `fastgen train` process."""
    words = [sys.executable, "-m", "fastgen.cli", "train", "--real", folder / "real", "--synthetic", folder / "out",
             "--backbone", f"timm/tiny={folder / 'resnet'}", "--out", out, "--tune", "full", "--mix", "replicate",
             "--seeds", "1", "--steps", "5"]  # fmt: skip
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    spread = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    env |= {name: str(value) for name, value in spread.items()} if world > 1 else {}
    return subprocess.Popen(list(map(str, words)), env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    make_images(tmp_path / "real" / "train", 4)
    make_images(tmp_path / "real" / "test", 5, start=100)
    rows = [
        make_row(i, class_=name, image=square(name, 500 + i)) for i in range(12) for name in [("blue", "red")[i % 2]]
    ]
    write_output(tmp_path / "out", rows)
    make_tiny_resnet(tmp_path / "resnet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, world in (("one", 1), ("two", 2)):
        processes = [start(tmp_path, tmp_path / name, rank, world, port) for rank in range(world)]
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    one, two = ((json.loads((tmp_path / name / "metrics.json").read_text())) for name in ("one", "two"))
    for arm in ("real", "real+synthetic"):
        first, second = one["arms"][arm]["seeds"][0], two["arms"][arm]["seeds"][0]
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-4)
        assert first["per_class"] == second["per_class"]
        states = [load_file(next((tmp_path / name / "trials").glob(f"{arm}.*.safetensors"))) for name in ("one", "two")]
        for key, value in states[0].items():
            torch.testing.assert_close(value, states[1][key], rtol=1e-3, atol=1e-5)
