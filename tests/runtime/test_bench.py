"""Times that are measured in turn, and what may be said about their ratio."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.model import load
from onnxprune.model.shapes.symbols import sizes_of
from onnxprune.report import numbers, text
from onnxprune.runtime import Setting, paired_timing
from onnxprune.runtime.bench import Place, bench, feeds_of
from onnxprune.runtime.paired_timing import SESSIONS, PairedTimings, TimeRatio, compare_timings
from tests.cli.test_cli import run  # noqa: F401 - a fixture
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"
ONE = Place(Setting(threads=1))
DIGITS = str(MODELS / "digits.onnx")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a simulated model runs."""
    now = [0.0]
    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: now[0])
    return now


def simulated(clock, seconds, *, of_session=0.0, of_run=0.0, rng=None):
    """A model that takes `seconds`, off by a factor per session and one per run."""
    rng = rng or np.random.default_rng(1)

    @contextmanager
    def opened():
        here = seconds * np.exp(of_session * rng.standard_normal())

        def step():
            clock[0] += here * np.exp(of_run * rng.standard_normal())

        yield step

    return opened


def test_equal_things_show_no_difference_in_nineteen_of_twenty_races(clock):
    """Sessions differ by 3 %: what is constant within a session must not count as known."""
    rng = np.random.default_rng(0)
    one = simulated(clock, 0.004, of_session=0.03, of_run=0.05, rng=rng)
    called = sum(not compare_timings([one, one], seconds=0.3).ratio(1).is_noise for _ in range(100))
    assert 1 <= called <= 11


def test_a_real_difference_is_called_and_measured(clock):
    rng = np.random.default_rng(1)
    given = [simulated(clock, s, of_session=0.02, of_run=0.1, rng=rng) for s in (0.004, 0.003)]
    found = compare_timings(given, seconds=1.0)
    ratio = found.ratio(1)
    assert not ratio.is_noise and ratio.low < 0.75 < ratio.high and ratio.high - ratio.low < 0.15
    assert found.median(0) == pytest.approx(0.004, rel=0.03)
    assert found.percentile(0, 95) > 1.1 * found.median(0)


def test_what_slows_the_machine_for_a_while_meets_all(clock):
    """A load that triples all times in the second half leaves the ratio as it is."""
    began = [0]

    def candidate(seconds):
        @contextmanager
        def opened():
            began[0] += 1
            slow = 3 if began[0] > SESSIONS else 1
            yield lambda: clock.__setitem__(0, clock[0] + slow * seconds)

        return opened

    ratio = compare_timings([candidate(0.01), candidate(0.008)], seconds=0.3).ratio(1)
    assert ratio.value == pytest.approx(0.8) and not ratio.is_noise


def test_what_is_interrupted_now_and_then_counts_with_its_other_runs(clock):
    """A third of all runs takes ten times as long: the ratio is that of the others."""
    rng = np.random.default_rng(0)

    def candidate(seconds):
        @contextmanager
        def opened():
            yield lambda: clock.__setitem__(0, clock[0] + seconds * (10 if rng.random() < 1 / 3 else 1))

        return opened

    found = compare_timings([candidate(0.004), candidate(0.003)], seconds=1.0)
    assert found.ratio(1).value == pytest.approx(0.75) and found.typical(0) == pytest.approx(0.004)


def test_shortest_races_still_have_all_sessions_and_rounds(clock):
    found = compare_timings([simulated(clock, 5.0)], seconds=0.0, least=2)
    assert found.rounds.shape == (SESSIONS, 2, 1) and len(found.runs[0]) == 2 * SESSIONS * paired_timing.FEWEST


def test_one_session_says_nothing_about_noise():
    assert PairedTimings(np.full((1, 3, 2), 0.5), ()).ratio(1).is_noise


def test_noise_is_not_given_as_a_number():
    assert text.ratio(TimeRatio(0.99, 0.97, 1.01)) == "no difference measured (within 3.0 %)"
    assert text.ratio(TimeRatio(0.9, 0.88, 0.92)) == "0.900 (0.880 to 0.920)"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.5, "2.500 s"), (0.0123456, "12.35 ms"), (0.1234567, "123.5 ms"), (8.5e-5, "85.00 us"), (3e-8, "0.030 us")],
)
def test_duration(seconds, shown):
    assert numbers.duration(seconds) == shown


# --- on models --------------------------------------------------------------------------------------------


def test_bench_of_two_models():
    first, second = bench([DIGITS, onnx.load(DIGITS)], place=ONE, batches=[1, 4], seconds=0.05, runs=6)
    assert (first.name, second.name) == ("digits.onnx", "model 2")
    assert first.size == Path(DIGITS).stat().st_size and first.shapes == {"image": (1, 1, 8, 8)}
    assert [t.batch for t in second.timings] == [1, 4]
    for timing in (*first.timings, *second.timings):
        assert 0 < timing.median <= timing.p95 and timing.runs >= 6
        assert timing.throughput == timing.batch / timing.median
    assert first.timings[0].ratio == TimeRatio(1, 1, 1)
    assert first.memory is None or 1 << 18 < first.memory < 1 << 30


def test_memory_grows_with_the_model():
    net = Net()
    net.output(net.add("MatMul", net.input([1, 2000]), net.weight(2000, 4000)), [1, 4000])
    small, large = bench([DIGITS, net.proto()], place=ONE, seconds=0.0, runs=1)
    if small.memory is not None:
        assert large.memory - small.memory > 0.8 * 32e6


def test_external_data_counts(tmp_path):
    (found,) = bench([str(MODELS / "external.onnx")], place=ONE, seconds=0.0, runs=1)
    assert found.size >= sum((MODELS / f"external.{end}").stat().st_size for end in ("onnx", "data")) * 0.99


def test_batch_of_a_model_with_another():
    net = Net()
    net.output(net.add("Relu", net.input([2, 3])), [2, 3])
    assert bench([net.proto()], batches=[2], seconds=0.0, runs=1)[0].timings[0].batch == 2
    with pytest.raises(UsageError, match="batches of 2 only"):
        bench([net.proto()], batches=[3], seconds=0.0, runs=1)


def test_shapes_become_sizes():
    graph = load(str(MODELS / "bert.onnx")).proto.graph
    name = graph.input[0].name
    sizes = sizes_of(graph, {name: (3, 7)})
    assert sorted(sizes.values()) == [3, 7]
    with pytest.raises(UsageError, match="no input is called 'y'"):
        sizes_of(graph, {"y": (1,)})
    for shape in ((3,), (3, 7, 1)):
        with pytest.raises(UsageError, match="cannot be"):
            sizes_of(graph, {name: shape})
    with pytest.raises(UsageError, match="cannot be 1x1x8x9"):
        sizes_of(onnx.load(DIGITS).graph, {"image": (1, 1, 8, 9)})


def test_feeds_take_the_shape_that_is_asked_for():
    model = load(str(MODELS / "bert.onnx"))
    name = model.proto.graph.input[0].name
    assert feeds_of(model, Place(Setting(threads=1), {name: (2, 5)}))[name].shape == (2, 5)
    assert feeds_of(model, Place(Setting(threads=1), {name: (2, 5)}), batch=3)[name].shape == (3, 5)


def test_a_model_that_does_not_run_says_so():
    net = Net()
    x = net.input(["n", "k"])
    net.output(net.add("MatMul", x, net.weight(5, 4)), ["n", 4])
    with pytest.raises(RunError, match="ONNX Runtime failed") as found:
        feeds_of(net.model(), ONE)
    assert "--shape" in found.value.hint


# --- the command ------------------------------------------------------------------------------------------


def test_command(run):  # noqa: F811
    ran = run("bench", DIGITS, DIGITS, "--threads", 1, "--seconds", 0, "--runs", 6, "--json")
    assert ran.code == 0 and ran.json["format"] == "onnxprune-bench" and ran.json["threads"] == 1
    assert [m["name"] for m in ran.json["models"]] == ["digits.onnx"] * 2
    assert ran.json["models"][1]["timings"][0]["ratio"]["low"] > 0
    shown = run("bench", DIGITS, "--threads", 1, "--seconds", 0, "--runs", 1, "--batch", "1,3").out.splitlines()
    assert shown[0].split() == ["inputs", "image", "1x1x8x8"] and len(shown) == 5
    assert shown[-1].split()[1] == "3" and shown[-1].endswith("(first)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "TPU"], "no provider 'TPU' here"),
        (["--batch", "1,0"], "not a list of positive numbers"),
        (["--shape", "image=1x-3"], "is not a shape"),
        (["--shape", "image=1x3"], "cannot be 1x3"),
        (["--shape", "picture=1"], "no input is called 'picture'"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, arguments, said):  # noqa: F811
    ran = run("bench", DIGITS, *arguments)
    assert ran.code == 2 and said in ran.err
