"""Every option that takes numbers, of every command, with numbers that nobody means: one clear error, or a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

from onnxprune.cli import types
from onnxprune.cli.app import COMMANDS, app
from onnxprune.cli.bench import MOST_RUNS
from onnxprune.runtime import paired_timing
from tests.cli.conftest import Run, run  # noqa: F401
from tests.graphs.net import Net

# The largest that an axis of a file can have, what no computer counts to, and what is no number for Python.
HUGE = (str(2**63 - 1), str(10**30), "9" * 5000)
VALUES = ("0", "-1", "1e308", "1e-308", "nan", "inf", "-inf", "", "x", *HUGE, "1e400%", str(2**31 - 1))
# Options whose values are numbers, though they are read as text.
AMOUNTS = ("AMOUNT", "[METRIC=]AMOUNT", "DB")
NUMBERS = (
    click.types.IntParamType,
    click.types.FloatParamType,
    types.Ratio,
    types.Ratios,
    types.Multiple,
    types.Counts,
    types.Shape,
    types.Duration,
)
# What stands in front of a number.
NAMES = {"--sizes": "batch=", "--shape": "x=", "--ratio-for": "*="}
# A short training; what stands behind it counts.
TRAINED = ("--steps", "2", "--rate", "1e-3")
# What an option needs to have an effect.
NEEDS = {
    "--threads": ("--time",),
    "--every": ("--while-training", "soft", "--train", "4", "--rate", "1e-3"),
    "--max-ratio": ("--macs", "60%"),
    "--max-drop": ("--eval", "echo {model} 1"),
    "--max-trials": ("--min-sqnr", "1", "--no-cache"),
    "--min-sqnr": ("--max-trials", "1", "--no-cache"),
    "--max-divergence": ("--max-trials", "1", "--no-cache"),
    "--jobs": ("--min-sqnr", "1", "--max-trials", "1", "--no-cache"),
}


def is_numeric(option: click.Parameter) -> bool:
    kind = option.type.value if isinstance(option.type, types.Pair) else option.type
    counted = isinstance(option, click.Option) and (option.count or option.is_flag)
    return not counted and (isinstance(kind, NUMBERS) or getattr(option, "metavar", None) in AMOUNTS)


def numeric_options() -> Iterator[tuple[str, str]]:
    """(command, option) of all options that take numbers."""
    for name in COMMANDS:
        command = app.get_command(click.Context(app), name)
        assert command is not None
        yield from ((name, option.opts[-1]) for option in command.params if is_numeric(option))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[str]]:
    """Command -> the arguments with which it does little."""
    folder = tmp_path_factory.mktemp("extremes")
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["batch", 6], name="x"), net.weight(6, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), ["batch", 4])
    model, small, plan, data = (str(folder / name) for name in ("m.onnx", "s.onnx", "p.json", "d.npz"))
    onnx.save(net.proto(), model)
    skip = Net()
    x = skip.add("Relu", skip.add("MatMul", skip.input(["batch", 6], name="x"), skip.weight(6, 8, name="w1")))
    inner = skip.add("Relu", skip.add("MatMul", x, skip.weight(8, 5)))
    x = skip.add("Add", x, skip.add("MatMul", inner, skip.weight(5, 8)))
    skip.output(skip.add("MatMul", x, skip.weight(8, 4)), ["batch", 4])
    skipped = str(folder / "r.onnx")
    onnx.save(skip.proto(), skipped)
    np.savez(data, x=np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32))
    from onnxprune.cli import main

    assert main(["prune", model, "-o", small, "--plan-out", plan, "-q"]) == 0
    recipe = folder / "r.toml"
    recipe.write_text('[[step]]\nrun = "prune"\n')
    return {
        # Without a budget nothing is searched: options that are none have little to do.
        "auto": [model, "--dry-run", "--data", data, "--accept-damage"],
        "inspect": [model],
        "init": [model, "-o", "-"],
        "prune": [model, "--dry-run", "--data", data],
        "plan": [model, "--data", data],
        "apply": [model, plan, "-o", str(folder / "a.onnx"), "--force", "--data", data],
        "verify": [model, small, "--plan", plan, "--data", data],
        "sensitivity": [model, "--data", data, "--ratios", "0.5", "--jobs", "1", "--no-cache"],
        "evaluate": [model, model, "--data", data],
        "diff": [model, model],
        "bench": [model, "--seconds", "0", "--runs", "1", "--threads", "1"],
        "shrink": [model, "-o", str(folder / "k.onnx"), "--force", "--data", data],
        "compress": [model, "-o", str(folder / "c.onnx"), "--force", "--data", data, "--no-time"],
        "sparsify": [model, "-o", str(folder / "z.onnx"), "--force", "--data", data, "--no-time"],
        "run": [str(recipe), model, "--dry-run", "--no-time", "--data", data],
        "drop": [skipped, "--dry-run", "--data", data, "--accept-damage"],
        "quantize": [model, "-o", str(folder / "q.onnx"), "--force", "--data", data, "--no-time", "--accept-damage"],
        "train": [model, "-o", str(folder / "t.onnx"), "--force", "--data", data, "--teacher", model, *TRAINED],
    }


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Times are measured with no patience."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("onnxprune.cost.latency.timer.SECONDS", 0.0)
    monkeypatch.setattr("onnxprune.cost.latency.profiler.SECONDS", 0.0)
    monkeypatch.setattr("onnxprune.runtime.paired_timing.SESSIONS", 1)
    monkeypatch.setattr("onnxprune.pipelines.auto_trials.SESSIONS", 1)
    monkeypatch.setattr("onnxprune.pipelines.auto_trials.QUICK", 0.0)
    monkeypatch.setenv("ONNXPRUNE_AUTO_SECONDS", "0.5")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("command", "option"), list(numeric_options()))
def test_an_error_or_a_result(run: Run, files: dict[str, Sequence[str]], command: str, option: str) -> None:  # noqa: F811
    known = {name for p in app.get_command(click.Context(app), command).params for name in p.opts}
    more = NEEDS.get(option, ()) if set(NEEDS.get(option, ())[::2]) <= known else ()
    for value in VALUES:
        done = run(command, *files[command], *more, option, NAMES.get(option, "") + value)
        shown = f"{command} {option} {value[:40]}: {done.code} {done.err[-300:]}"
        assert done.code in (0, 1, 2, 3, 4), shown
        assert "Traceback" not in done.err and "internal error" not in done.err, shown
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (done.code != 0), shown


@pytest.mark.parametrize("value", ["0", "-1GB", "1e308TB", "1e30GB", "nan", "infGB", "", "x", "9" * 5000 + "GB"])
def test_a_limit_on_memory(run: Run, value: str) -> None:  # noqa: F811
    """Those that would take effect would do so here; see `test_memory.py`."""
    done = run("--max-memory", value, "criteria")
    assert done.code == 2 and done.err.startswith("error: --max-memory: ")


def test_the_bound_on_runs_is_what_is_measured_at_most() -> None:
    assert MOST_RUNS == paired_timing.SESSIONS * paired_timing.LONGEST


def test_options_were_found() -> None:
    """The sweep is over what the commands declare, and knows the kinds of options that there are."""
    wanted = {"--ratio", "--macs", "--steps", "--sizes", "--shape", "--batch", "--seconds", "--min-sqnr", "--jobs"}
    assert wanted <= {option for _, option in numeric_options()}
    assert len(list(numeric_options())) > 50
