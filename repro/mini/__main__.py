"""Trains, assembles and judges the mini model from nothing: `python -m repro.mini --work out/mini`.

Every stage resumes from its checkpoint and is skipped quickly when it is finished, so the command can be stopped and
started.
"""

import subprocess
import sys

STAGES = ("data", "clip", "vae", "decoder", "unet", "ip_adapter", "resnet", "oracle", "assemble", "evaluate")


def main() -> None:
    """Runs the stages in order; arguments (--work) go to every stage."""
    for stage in STAGES:
        print(f"== {stage}", flush=True)
        subprocess.run([sys.executable, "-m", f"repro.mini.{stage}", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
