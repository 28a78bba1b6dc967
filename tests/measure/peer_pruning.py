"""Half of the channels of ResNet-50 taken out by structured pruners, whole processes: figures of docs/peers.md.

    python -m tests.measure.peer_pruning MODEL.onnx --tool onnxprune=PYTHON --tool torch-pruning=PYTHON ...

MODEL.onnx is an export of torchvision's ResNet-50. Each PYTHON is the interpreter of an environment of its own: of
onnxprune, or of torch, torchvision and `torch-pruning` or `torch-kirigami`. The pruners of PyTorch build the module
with random weights, cut it and save it; what is left of the multiply-accumulates is counted in the module. Times are
processor seconds of the whole process, the least of the rounds, in turn. A pruner that takes longer than --timeout
seconds is stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.measure.peers import processor_seconds

# Before and after a pruner's own lines: the module that is cut, and what is left of it.
_BEFORE = """
import json, sys, torch, torchvision
torch.set_num_threads(1)
torch.manual_seed(0)
model, example = torchvision.models.resnet50(weights=None).eval(), torch.randn(1, 3, 224, 224)
"""
_AFTER = """
torch.save(model, sys.argv[1])
macs = []
def count(layer, given, made):
    macs.append(layer.weight[0].numel() * made.numel())
for layer in model.modules():
    if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
        layer.register_forward_hook(count)
assert model(example).shape == (1, 1000)
print("@" + json.dumps([sum(p.numel() for p in model.parameters()), sum(macs)]))
"""
PRUNE = {
    "torch-pruning": """
import torch_pruning as tp
importance = tp.importance.MagnitudeImportance(p=2)
tp.pruner.MagnitudePruner(
    model, example, importance=importance, pruning_ratio=0.5, ignored_layers=[model.fc]
).step()
""",
    "torch-kirigami": """
from torch_kirigami import DependencyGraph
from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner
pruner = Pruner(model, graph=DependencyGraph.build(model, args=(example,)))
space = pruner.discover_candidates()
model, _ = pruner.prune(space, budget=ChannelRatio(0.5), strategy=Greedy(GroupMagnitude(p=2)))
""",
}


def cut(tool: str, python: str, source: Path, timeout: float) -> tuple[float, float]:
    """Parameters and multiply-accumulates that a pruner leaves."""
    with TemporaryDirectory() as folder:
        if tool == "onnxprune":
            words = ["prune", str(source), "-o", f"{folder}/out.onnx", "--ratio", "0.5", "--json", "--quiet"]
            command = [str(Path(python).with_name(tool)), *words]
        else:
            command = [python, "-c", _BEFORE + PRUNE[tool] + _AFTER, f"{folder}/out.pt"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
    if tool == "onnxprune":
        after = json.loads(done.stdout)["after"]
        return after["params"], after["macs"]
    params, macs = json.loads(done.stdout.rpartition("@")[2])
    return params, macs


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tool", action="append", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=1200)
    given = parser.parse_args()
    tools = dict(pair.split("=", 1) for pair in given.tool)
    times: dict[str, list[float]] = {tool: [] for tool in tools}
    left: dict[str, tuple[float, float]] = {}
    for finished in range(given.rounds):
        for tool in [tool for tool in tools if len(times[tool]) == finished]:
            before = processor_seconds()
            try:
                left[tool] = cut(tool, tools[tool], given.model, given.timeout)
                times[tool].append(processor_seconds() - before)
            except subprocess.TimeoutExpired:
                print(f"{tool}: stopped after {processor_seconds() - before:.0f} processor seconds")
    print("| | params | MACs | seconds |\n|---|--:|--:|--:|")
    for tool, (params, macs) in left.items():
        print(f"| {tool} | {params / 1e6:.1f} M | {macs / 1e9:.2f} G | {min(times[tool]):.1f} |")


if __name__ == "__main__":
    main()
