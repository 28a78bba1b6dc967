"""Install size and simplification beside other tools: figures of docs/peers.md.

    python -m tests.measure.peers [MODEL.onnx ...] --tool onnxslim=PYTHON --tool onnxsim=PYTHON ... [--rounds 5]

Each PYTHON is the interpreter of an environment of its own, with that tool alone (polygraphy with onnx, onnxruntime and
onnx-graphsurgeon, which it asks for; olive with onnxruntime). `--tool onnxprune=PYTHON` is measured in the same way.

Times are those of the whole process, start and imports included: processor seconds of all its threads, the least of
the rounds. The tools take turns within each round, so that other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

# Tool -> the arguments of its program with which it simplifies a model without loss.
SIMPLIFY = {
    "onnxprune": ("compress", "{source}", "-o", "{target}", "--no-time", "--quiet"),
    "onnxslim": ("{source}", "{target}"),
    "onnxsim": ("{source}", "{target}"),
    "polygraphy": ("surgeon", "sanitize", "{source}", "--fold-constants", "--cleanup", "-o", "{target}"),
    "olive": ("run-pass", "--pass-name", "OnnxPeepholeOptimizer", "-m", "{source}", "-o", "{target}"),
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


def processor_seconds() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def simplified(tool: str, python: str, source: Path) -> tuple[str, float]:
    """What a tool leaves of a model, and the processor seconds that it takes."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        words = [word.format(source=source, target=target) for word in SIMPLIFY[tool]]
        before = processor_seconds()
        done = subprocess.run([Path(python).with_name(tool), *words], capture_output=True, check=False)
        seconds = processor_seconds() - before
        return (cell(python, target) if done.returncode == 0 and target.is_file() else "fails"), seconds


def compared(source: Path, able: dict[str, str], rounds: int) -> list[str]:
    """One cell for each tool: what it leaves, and its least time over rounds in turn."""
    left: dict[str, str] = {}
    times: dict[str, list[float]] = {tool: [] for tool in able}
    for _ in range(rounds):
        for tool, python in able.items():
            left[tool], seconds = simplified(tool, python, source)
            times[tool].append(seconds)
    return [f"{left[tool]}, {min(times[tool]):.1f} s" if left[tool] != "fails" else "fails" for tool in able]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--tool", action="append", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    tools = dict(pair.split("=", 1) for pair in given.tool)
    print("| | packages | MB |\n|---|--:|--:|")
    for tool, python in tools.items():
        done = subprocess.run([python, "-c", PACKAGES], check=True, capture_output=True, text=True)
        count, size = json.loads(done.stdout)
        print(f"| {tool} | {count} | {size / 1e6:.0f} |", flush=True)
    able = {tool: python for tool, python in tools.items() if tool in SIMPLIFY}
    print(f"\n| nodes, file, time | original | {' | '.join(able)} |\n|---|---|{'---|' * len(able)}")
    for source in given.models:
        cells = compared(source, able, given.rounds)
        print(f"| {source.stem} | {cell(next(iter(tools.values())), source)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
