"""Install size and simplification beside other tools: figures of docs/peers.md.

    python -m tests.measure.peers [MODEL.onnx ...] --tool onnxslim=PYTHON --tool onnxsim=PYTHON ...

Each PYTHON is the interpreter of an environment of its own, with that tool alone (polygraphy with onnx, onnxruntime and
onnx-graphsurgeon, which it asks for). `--tool onnxprune=PYTHON` is measured in the same way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

# Tool -> the arguments of its program with which it simplifies a model without loss.
SIMPLIFY = {
    "onnxprune": ("compress", "{source}", "-o", "{target}", "--no-time", "--quiet"),
    "onnxslim": ("{source}", "{target}"),
    "onnxsim": ("{source}", "{target}"),
    "polygraphy": ("surgeon", "sanitize", "{source}", "--fold-constants", "--cleanup", "-o", "{target}"),
}
PACKAGES = """
import json
from importlib.metadata import distributions
from pathlib import Path
found = [d for d in distributions() if d.name not in ("pip", "setuptools")]
places = {Path(d.locate_file("")) for d in found}
size = sum(f.stat().st_size for place in places for f in place.rglob("*") if f.is_file() and f.suffix != ".pyc")
print(json.dumps([len({d.name for d in found}), size]))
"""
NODES = """
import sys, onnx
print(len(onnx.load(sys.argv[1], load_external_data=False).graph.node))
"""


def cell(python: str, path: Path) -> str:
    """The nodes and the size of a model."""
    done = subprocess.run([python, "-c", NODES, str(path)], check=True, capture_output=True, text=True)
    return f"{int(done.stdout):,}, {path.stat().st_size / 1024:,.0f} KiB"


def simplified(tool: str, python: str, source: Path) -> str:
    """What a tool leaves of a model."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        words = [word.format(source=source, target=target) for word in SIMPLIFY[tool]]
        done = subprocess.run([Path(python).with_name(tool), *words], capture_output=True, check=False)
        return cell(python, target) if done.returncode == 0 and target.is_file() else "fails"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--tool", action="append", required=True)
    given = parser.parse_args()
    tools = dict(pair.split("=", 1) for pair in given.tool)
    print("| | packages | MB |\n|---|--:|--:|")
    for tool, python in tools.items():
        done = subprocess.run([python, "-c", PACKAGES], check=True, capture_output=True, text=True)
        count, size = json.loads(done.stdout)
        print(f"| {tool} | {count} | {size / 1e6:.0f} |", flush=True)
    able = {tool: python for tool, python in tools.items() if tool in SIMPLIFY}
    print(f"\n| nodes, file | original | {' | '.join(able)} |\n|---|---|{'---|' * len(able)}")
    for source in given.models:
        cells = [simplified(tool, python, source) for tool, python in able.items()]
        print(f"| {source.stem} | {cell(next(iter(tools.values())), source)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
