"""What `polygraphy inspect sparsity` of NVIDIA says of 2:4 weights that `sparsify` made: the table in docs/sparsity.md.

    python -m tests.measure.sparsity_polygraphy --polygraphy COMMAND [--names digits,resnet,...]

`--polygraphy` is the command in an environment of its own. Its names of sparse tensors are held against those that the
plan of `sparsify --pattern 2:4` has; it looks at weights of Conv, Gemm and MatMul.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import onnx

from onnxprune import sparsify

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = "digits,mlp,resnet,vgg,mobilenet_v2,densenet,vit,bert,llama"
FOUND = re.compile(r"Found sparse tensor: (\S+)")
CHECKED = re.compile(r"Finished checking (\d+) tensors")


def row(name: str, command: str, folder: Path) -> str:
    """One line of the table."""
    done = sparsify(str(MODELS / f"{name}.onnx"), pattern="2:4")
    path = folder / f"{name}.onnx"
    onnx.save(done.model, path)
    ran = subprocess.run([command, "inspect", "sparsity", str(path)], check=True, capture_output=True, text=True)
    told, said = ran.stdout + ran.stderr, {step.tensor for step in done.plan.zeros}
    found, checked = set(FOUND.findall(told)), CHECKED.search(told)
    assert checked is not None, told
    missing = sorted(said - found)
    return f"| {name} | {len(said)} | {checked[1]} | {len(found & said)} | {', '.join(missing[:3]) or '-'} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polygraphy", required=True, help="the command of polygraphy")
    parser.add_argument("--names", default=NAMES)
    given = parser.parse_args()
    print("| model | weights made 2:4 | tensors it checks | of these sparse | not told |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for model in given.names.split(","):
            print(row(model, given.polygraphy, Path(name)), flush=True)


if __name__ == "__main__":
    main()
