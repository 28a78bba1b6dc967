"""SIGKILL while a model trains: what is resumed equals what was never interrupted, bit for bit.

    python -m tests.measure.training_kills [--kills 50]

Every command is run to its end once. Then it is started again and again with `--resume`, and killed at a random moment
of the time that a whole run takes, until that was done as often as asked for. Whenever a run comes to its end, its
model is compared with the first one, and the next one begins anew. Checkpoints are written after every step.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = str(MODELS / "digits.onnx"), str(MODELS / "digits_calibration.npz")
EAGER = "import onnxprune.recovery.fine_tune as f; f.CHECKPOINT_SECONDS = 0\n"
CALL = "import sys; from onnxprune.cli import main; sys.exit(main(sys.argv[1:]))"
STEPS = ["--data", DATA, "--batch", "32", "-q"]
CUT = ["prune", DIGITS, "--ratio", "0.75", "--criterion", "l2", *STEPS, "--train", "40"]


def commands(folder: Path) -> dict[str, list[str]]:
    """What is killed, but for the output, by name; makes the model that `train` begins with."""
    cut = str(folder / "cut.onnx")
    subprocess.run([sys.executable, "-m", "onnxprune", *CUT[:6], "-o", cut, "--data", DATA, "-q"], check=True)
    zeros = ["sparsify", DIGITS, "--sparsity", "0.9", *STEPS, "--train", "40"]
    return {
        "train": ["train", cut, "--teacher", DIGITS, *STEPS, "--steps", "40", "--threads", "1"],
        "prune --train": CUT,
        "prune --train, in rounds": [*CUT[:-1], "20", "--steps", "3"],
        "prune --while-training soft": [*CUT, "--while-training", "soft"],
        "prune --while-training group-lasso": [*CUT, "--while-training", "group-lasso"],
        "sparsify --while-training rigl": [*zeros, "--while-training", "rigl"],
    }


@dataclass(frozen=True)
class Killed:
    """What became of a command that was killed.

    Attributes:
        kills: how often it was killed.
        training: how many of these found a checkpoint of a training that had begun.
        finished: runs that came to their end.
        equal: how many of these made the same file as the run that was never interrupted.
    """

    kills: int
    training: int
    finished: int
    equal: int


def start(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Begin, or go on."""
    call = [sys.executable, "-c", EAGER + CALL, *command, "-o", str(output), "--resume"]
    return subprocess.Popen(call, stderr=subprocess.PIPE, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})


def finished(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end, which must be a good one."""
    said = process.communicate()[1].decode()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said}")


def killed(
    command: Sequence[str], folder: Path, times: int, *, seed: int = 0, number: signal.Signals = signal.SIGKILL
) -> Killed:
    """Kill a command at random moments, and go on with it, until it was killed for so many times."""
    rng, begun, whole, output = random.Random(seed), time.monotonic(), folder / "whole.onnx", folder / "resumed.onnx"
    finished(start(command, whole))
    seconds = time.monotonic() - begun
    kept = Path(f"{output}.checkpoint")
    kills = training = ends = equal = 0
    while kills < times or not ends or kept.exists():
        process = start(command, output)
        try:
            process.wait(rng.random() * seconds if kills < times else None)
            finished(process)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.communicate()
            kills, training = kills + 1, training + kept.exists()
        if output.exists() and not kept.exists():
            ends, equal = ends + 1, equal + (output.read_bytes() == whole.read_bytes())
            output.unlink()
    left = sorted(path.name for path in folder.iterdir() if path.suffix != ".onnx")
    if left:
        raise RuntimeError(f"files stay behind: {', '.join(left)}")
    return Killed(kills, training, ends, equal)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    times = parser.parse_args().kills
    print("| command | killed | of these while it trained | runs that ended | equal to the whole run, bit for bit |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="onnxprune-kills-") as place:
        for name, command in commands(Path(place)).items():
            with tempfile.TemporaryDirectory(prefix="onnxprune-kills-") as folder:
                done = killed(command, Path(folder), times)
            print(f"| `{name}` | {done.kills} | {done.training} | {done.finished} | {done.equal} |", flush=True)


if __name__ == "__main__":
    main()
