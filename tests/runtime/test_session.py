"""Sessions of ONNX Runtime: what they run, how they fail, and what they leave."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model, load
from onnxprune.runtime import Session, Setting
from onnxprune.runtime import session as sessions
from onnxprune.runtime.session import CPU_PROVIDER, Deployed, runtime_version
from tests.graphs.net import Net


def doubling() -> Model:
    net = Net()
    h = net.add("MatMul", net.input(["n", 2]), net.const(2 * np.eye(2, dtype=np.float32), "w"), name="h")
    net.output(net.add("Relu", h, name="y"), ["n", 2])
    net.output(h, ["n", 2])
    return load(net.proto())


X = np.array([[1.0, -1.0]], np.float32)


def test_a_model_runs_and_names_what_it_takes_and_gives() -> None:
    with Session(doubling()) as session:
        assert session.inputs == {"x"} and session.outputs == ["y", "h"] and session.arrays == {"y", "h"}
        y, h = session.run({"x": X})
        assert y.tolist() == [[2, 0]] and h.tolist() == [[2, -2]]
        assert [v.tolist() for v in session.run({"x": X}, ["h"])] == [[[2, -2]]]


def test_weights_in_another_file_are_run_without_being_read_here(tmp_path: Path) -> None:
    from onnxprune.model import save

    save(doubling(), tmp_path / "m.onnx", external=True)
    with Session(load(tmp_path / "m.onnx")) as session:
        assert session.run({"x": X}, ["y"])[0].tolist() == [[2, 0]]


def test_no_temporary_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sessions, "LARGEST_IN_MEMORY", 0)
    with Session(doubling()) as session:
        session.run({"x": X})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError):
        Session(broken())
    assert list(tmp_path.iterdir()) == []


def broken() -> Model:
    net = Net()
    net.output(net.add("Nothing", net.input([1]), domain="nowhere"), [1])
    return Model(net.proto())


def test_what_the_runtime_refuses_is_said_in_one_line() -> None:
    with pytest.raises(RunError, match="ONNX Runtime cannot load the model") as caught:
        Session(broken())
    assert "\n" not in caught.value.message and "/onnxruntime_src/" not in caught.value.message


def test_a_run_that_fails_is_an_error_of_its_own() -> None:
    with Session(doubling()) as session, pytest.raises(RunError, match="ONNX Runtime failed"):
        session.run({"x": np.ones((1, 3), np.float32)})


def test_a_fused_graph_gives_the_same_up_to_rounding() -> None:
    net = Net()
    x = net.input([1, 8, 9, 9], name="x")
    for _ in range(2):
        x = net.add("Relu", net.add("Conv", x, net.weight(8, 8, 3, 3)))
    net.output(x)
    model, feeds = load(net.proto()), {"x": np.random.default_rng(0).standard_normal((1, 8, 9, 9)).astype(np.float32)}
    with Session(model) as plain, Session(model, fused=True) as fused:
        (one,), (other,) = plain.run(feeds), fused.run(feeds)
    assert not fused.optimiser_failed
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_a_run_ends_at_its_limit() -> None:
    net = Net()
    h = net.input([400, 400])
    for i in range(60):
        h = net.add("MatMul", h, net.input([400, 400], f"w{i}"))
    net.output(h, [400, 400])
    feeds = {n: np.zeros((400, 400), np.float32) for n in ("x", *(f"w{i}" for i in range(60)))}
    with (
        Session(load(net.proto()), threads=1, limit=1e-3) as session,
        pytest.raises(RunError, match=r"did not end within 0\.001 seconds"),
    ):
        session.run(feeds)


def test_providers_by_their_short_name() -> None:
    assert Setting("cpu").provider == Setting().provider == CPU_PROVIDER
    with pytest.raises(UsageError, match="has no provider 'Abacus'") as caught:
        Setting("Abacus")
    assert CPU_PROVIDER in (caught.value.hint or "")


def test_a_deployed_model_writes_its_profile_and_its_graph(tmp_path: Path) -> None:
    target = tmp_path / "optimised.onnx"
    with Deployed(doubling(), Setting(threads=1), profile=str(tmp_path / "p"), optimised_to=str(target)) as session:
        session.run({"x": X})
        assert session.finish_profile().parent == tmp_path
    assert target.exists()


def test_the_machine_is_known() -> None:
    assert runtime_version().split(".")[0].isdigit()
