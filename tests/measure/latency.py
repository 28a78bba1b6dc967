"""Budgets on time, measured: the tables in docs/latency.md.

    python -m tests.measure.latency [--model NAME ...] [--threads 1,2] [--target 50] [--busy] [--write]

Needs the folder of shared models (see tests/graphs/shared.py), and a machine that does nothing else (with --busy, the
time of one thread is what the processor spends on it, which is near enough where others work, too). For every model and
number of threads: the target share of the time is asked for, and the result measured afresh; budgets on MACs and plain
ratios with --round-to 8 are searched that take the same time, and the damage to the outputs is compared; and
ratios from 0.1 to 0.9 are timed with and without --round-to auto, against what tables predicted.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from onnxprune import calibration, criteria
from onnxprune.allocation import BudgetFitter, Options, select
from onnxprune.cost.latency.prediction import Prediction
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, load
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.compare import agreement
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Setting, paired_timing
from onnxprune.runtime.bench import Place, candidate, feeds_at
from onnxprune.runtime.paired_timing import compare_timings
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array
from tests.graphs import shared

PAGE = Path(__file__).parents[2] / "docs" / "latency.md"
CNNS = (
    *("models/cifar_resnet20_ts_op11", "models/cifar_resnet56_dynamo_op20", "models/mlperf_resnet8_cifar10"),
    *("models/keras_mobilenetv1_025_224", "models/ultraface_rfb320", "dynamo/tv_mobilenet_v2"),
    *("dynamo/tv_shufflenet_v2_x1_0", "dynamo/tv_resnet18"),
)
TRANSFORMERS = (
    *("ts/hf_deit_tiny", "ts/timm_eva02_tiny_patch14_224", "ts/timm_pvt_v2_b0"),
    *("ts/timm_xcit_nano_12_p16_224", "dynamo/nn_transformer_seq2seq"),
)
CRITERION, INPUTS = "obs", 64
RATIOS = tuple(np.arange(1, 10) / 10)
# Where the search for a budget that takes a given time ends.
HALVINGS, TRIES, CLOSE = 7, 2, 0.02


@dataclass(eq=False)
class Subject:
    """A model on a machine."""

    name: str
    groups: Groups
    scores: Array
    timing: BudgetFitter
    inputs: list[Mapping[str, Array]]

    @classmethod
    def of(cls, name: str, model: Model, threads: int) -> Subject:
        groups = trace(model)
        kind, _, short = name.partition("/")
        given = shared.sample_inputs(short, INPUTS) if kind == "models" else []
        runs = calibration.read(given or "random", model, samples=INPUTS, batch=4)
        scores = criteria.score(groups, CRITERION, 0, runs[: _part(runs)], compared=True)
        options = Options(ratio=0.5, criterion=CRITERION, round_to="auto")
        timing = BudgetFitter.of(groups, scores, options, Place(Setting(threads=threads)), lambda stage: None)
        return cls(name, groups, scores, timing, runs)

    @property
    def prediction(self) -> Prediction:
        return self.timing.timer.expected(self.timing.widths)

    def chosen(self, options: Options) -> Mapping[str, Array]:
        multiples = self.timing.multiples if options.is_aligned else {}
        return select(self.groups, self.scores, options, multiples=multiples).removed

    def expected(self, removed: Mapping[str, Array]) -> float:
        """The share of the time that is predicted to be left."""
        counts = [len(removed.get(g.name, ())) * g.units // len(g.classes) for g in self.groups.groups]
        found = self.prediction
        return found.total(np.array(counts, np.int64)) / found.total(np.zeros(len(counts), np.int64))

    def cut(self, removed: Mapping[str, Array]) -> Removal:
        return Removal(self.groups, removed_classes(self.groups, removed))

    def damage(self, removed: Mapping[str, Array], small: Model) -> float:
        """Signal to noise in dB of the outputs of the repaired model, on inputs that nothing has seen."""
        cut, part = self.cut(removed), _part(self.inputs)
        small, _ = recover(cut, small, self.inputs[:part], RecoveryOptions())
        return agreement(cut, small, self.inputs[part:]).sqnr

    def compare_timings(self, models: list[Model], *, seconds: float, sessions: int = 6) -> list[float]:
        """The share of the original's time that each takes, measured in turn."""
        timer = self.timing.timer
        given = [(self.groups.model, timer.feeds)]
        given += [(m, feeds_at(m, timer.place.setting, timer.sizes)) for m in models]
        candidates = [candidate(model, timer.place.setting, feeds) for model, feeds in given]
        compared = compare_timings(candidates, seconds=seconds, sessions=sessions, least=2)
        return [compared.ratio(i).value for i in range(1, len(given))]


def _part(inputs: Sequence[object]) -> int:
    """How many of the inputs are for scores and repairs; the others judge."""
    return len(inputs) * 3 // 4


def same_time(subject: Subject, share: float, options: Callable[[float], Options]) -> tuple[Mapping[str, Array], float]:
    """What `options` of some amount remove where the result takes a share of the time, and the share it measures.

    Args:
        subject: the model.
        share: of the original's time.
        options: amount in (0, 1), larger for larger models -> what to prune.
    """
    aim, best, error = share, {}, np.inf
    for _ in range(TRIES):
        low, high, found = 0.02, 1.0, {}
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            try:
                removed = subject.chosen(options(middle))
            except OnnxPruneError:
                low = middle
                continue
            if subject.expected(removed) <= aim:
                low, found = middle, removed
            else:
                high = middle
        (measured,) = subject.compare_timings(
            [rewrite(subject.groups, removed_classes(subject.groups, found))], seconds=0.5
        )
        if abs(measured / share - 1) < error:
            best, error, result = found, abs(measured / share - 1), measured
        if error < CLOSE:
            break
        aim *= share / measured
    return best, result


@dataclass
class Rows:
    """Lines of the three tables."""

    hit: list[str]
    damage: list[str]
    curve: list[str]


def measure(subject: Subject, target: float, rows: Rows) -> None:
    """Add what is found of one model."""
    threads = subject.timing.timer.place.setting.threads
    about = f"| {subject.name.partition('/')[2]} | {threads} |"
    start = time.perf_counter()
    options = replace(subject.timing.options, ratio=None, latency=f"{100 * target:g}%")
    selection = replace(subject.timing, options=options).fit()
    (goal,) = selection.goals
    took = time.perf_counter() - start
    small = rewrite(subject.groups, subject.cut(selection.removed).removed_classes)
    (fresh,) = subject.compare_timings([small], seconds=2.0)

    curves = {}
    for how in (1, "auto"):
        curves[how] = [subject.chosen(replace(subject.timing.options, ratio=float(r), round_to=how)) for r in RATIOS]
    removed = [*curves[1], *curves["auto"]]
    made = [rewrite(subject.groups, subject.cut(r).removed_classes) for r in removed]
    measured = np.array(subject.compare_timings(made, seconds=0.3, sessions=3))
    expected = np.array([subject.expected(r) for r in removed])
    fit = 1 - np.square(measured - expected).sum() / np.square(measured - measured.mean()).sum()
    off = np.abs(measured - expected)
    reached = "yes" if target * 0.95 <= fresh <= target * 1.01 else "NO"
    before = f"{1e3 * subject.timing.timer.before:.2f} ms"
    rows.hit.append(
        f"{about} {before} | {fresh:.1%} | {goal.reached / goal.before:.1%} | {reached} | {fit:.3f} | {off.max():.1%} |"
        f" {took:.0f} s |"
    )
    print(rows.hit[-1], flush=True)
    plain, rounded = (" ".join(f"{100 * s:.0f}" for s in part) for part in np.split(measured, 2))
    rows.curve.append(f"{about} {plain} | {rounded} |")
    print(rows.curve[-1], flush=True)

    if threads > 1:  # what goes hardly depends on threads
        return
    others = {
        "macs": lambda amount: Options(macs=f"{100 * amount:g}%", criterion=CRITERION),
        "ratio": lambda amount: Options(ratio=1 - amount, round_to=8, criterion=CRITERION),
    }
    cells = [f"{fresh:.1%}: {subject.damage(selection.removed, small):.1f}"]
    for how in others.values():
        found, share = same_time(subject, fresh, how)
        cells.append(
            f"{share:.1%}: {subject.damage(found, rewrite(subject.groups, subject.cut(found).removed_classes)):.1f}"
        )
    rows.damage.append(f"{about} {' | '.join(cells)} |")
    print(rows.damage[-1], flush=True)


HEADS = {
    "hit": "| model | threads | original | measured afresh | when fitted | within 5 % | R^2 | worst error | took |\n"
    "|---|---|---|---|---|---|---|---|---|",
    "damage": "| model | threads | `--latency` | `--macs` | `--ratio --round-to 8` |\n|---|---|---|---|---|",
    "curve": "| model | threads | ratio 0.1 ... 0.9 | the same with `--round-to auto` |\n|---|---|---|---|",
}


def write(rows: Rows) -> None:
    """Put the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, head in HEADS.items():
        table = "\n".join([head, *getattr(rows, name)])
        mark = f"<!-- {name} -->"
        text = re.sub(rf"{mark}.*?<!-- end -->", f"{mark}\n{table}\n<!-- end -->", text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")


def count_own_time() -> None:
    """Time runs by what this thread takes of the processor, on a machine with other work."""
    paired_timing.time = SimpleNamespace(perf_counter=time.thread_time)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--target", type=float, default=50.0)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    if given.busy:
        given.threads = "1"
        count_own_time()
    rows = Rows([], [], [])
    for name in given.model or CNNS + TRANSFORMERS:
        with shared.materialised(shared.entry(name)) as path:
            for threads in map(int, given.threads.split(",")):
                try:
                    measure(Subject.of(name, load(str(path)), threads), given.target / 100, rows)
                except OnnxPruneError as error:
                    print(f"{name}, {threads} threads: {error.message}", flush=True)
                if given.write:
                    write(rows)


if __name__ == "__main__":
    main()
