"""Native code that never ends: known traps are refused, runs have an end, and SIGTERM ends the program at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune import Options, api
from onnxprune.errors import GoalMissed, ModelError, RunError
from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.proof import prove
from onnxprune.runtime import Session
from onnxprune.system import termination
from tests.graphs.net import Net

ENDLESS = 1 << 62


def einsum(equation: str, inputs: int = 2) -> onnx.ModelProto:
    net = Net(12)
    given = [net.input([3, 3, 3]) for _ in range(inputs)]
    net.output(net.add("Einsum", *given, equation=equation, name="product"), [3, 3, 3], TensorProto.FLOAT)
    return net.proto()


@pytest.mark.parametrize(
    "equation",
    [
        "......ii,...jj->...ij",
        "......j",
        "i......,j",
        "...i...,jk",
        "..i,j",
        "i.j,k",
        "ij->jk->k",
        "i,j-k",
        "i1,j",
        "i>j",
    ],
)
def test_equations_that_are_none(equation: str) -> None:
    with pytest.raises(ModelError, match=r"Einsum 'product.*' has the equation"):
        load(einsum(equation))


@pytest.mark.parametrize(
    "equation", ["ijk,ikl->ijl", "...ij, ...jk -> ...ik", "ijk,ijk", "...,...->...", "i...j,i...k"]
)
def test_equations(equation: str) -> None:
    infer(load(einsum(equation)))


def test_equations_in_bodies_and_functions() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[3, 3] x) => (float[3, 3] y) { y = own.F (x) }
        <domain: "own", opset_import: ["" : 17]> F (a) => (b) { b = Einsum <equation = "......i"> (a) }"""
    )
    with pytest.raises(ModelError, match="has the equation"):
        load(proto)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("LayerNormalization", {"axis": 1 << 31}),
        ("Softmax", {"axis": -(1 << 63)}),
        ("GatherND", {"batch_dims": 1 << 40}),
    ],
)
def test_absurd_axes(op: str, attrs: dict[str, int]) -> None:
    net = Net()
    second = [net.const(np.ones(3, np.float32))] if op == "LayerNormalization" else []
    second += [net.ints(0)] if op == "GatherND" else []
    net.output(net.add(op, net.input([2, 3]), *second, **attrs), [2, 3], TensorProto.FLOAT)
    with pytest.raises(ModelError, match=f"{op} .* has (axis|batch_dims)"):
        load(net.proto())


def test_a_split_into_another_number() -> None:
    net = Net(18)
    made = net.add("Split", net.input([4, 2]), outputs=2, num_outputs=1)
    net.output(made[0], [2, 2], TensorProto.FLOAT)
    with pytest.raises(ModelError, match="2 outputs, but num_outputs 1"):
        load(net.proto())


@pytest.mark.parametrize("op", ["Expand", "Reshape", "ConstantOfShape"])
def test_targets_of_many_axes(op: str) -> None:
    net = Net()
    target = net.input([1 << 40], dtype=TensorProto.INT64)
    net.output(net.add(op, *([] if op == "ConstantOfShape" else [net.input([4, 2])]), target), [2], TensorProto.FLOAT)
    with pytest.raises(ModelError, match="a target shape of"):
        load(net.proto())


# --- sizes ---------------------------------------------------------------------------------------------------


def huge(op: str) -> onnx.ModelProto:
    """A layer, and beside it an operator that would make terabytes of a few numbers."""
    net = Net()
    x = net.input([2, 3])
    net.read(net.add("Relu", net.make((2, 8), 1, source=x)), 1)
    big, many = net.ints(ENDLESS), net.const(np.arange(1 << 15, dtype=np.int64))
    column = net.add("Unsqueeze", many, net.ints(1))
    inputs = {
        "Tile": [net.ints(1, 2), big],
        "Expand": [net.ints(1), big],
        "ConstantOfShape": [net.ints(1 << 40)],
        "Range": [net.const(0, dtype=np.int64), net.const(ENDLESS, dtype=np.int64), net.const(1, dtype=np.int64)],
        "Add": [column, many],
        "Max": [column, many],
        "Gather": [net.add("Expand", column, net.ints(1 << 15, 16)), many],
        "Pad": [many, net.ints(ENDLESS, 0)],
        "Resize": [net.const(np.ones((1, 1, 2), np.float32)), "", net.const(np.array([1, 1, 1e15], np.float32))],
    }
    made = net.add(op, *inputs[op], name="much")
    net.output(
        net.add("Shape", made), [2 if op in ("Add", "Max", "Gather") else 3 if op == "Resize" else 1], TensorProto.INT64
    )
    return net.proto()


@pytest.mark.parametrize("op", ["Tile", "Expand", "ConstantOfShape", "Range", "Add", "Max", "Gather", "Pad", "Resize"])
def test_sizes_that_nothing_can_hold(op: str) -> None:
    """Neither time nor memory is spent on the values of a constant subgraph that is enormous."""
    before, start = _peak(), time.process_time()
    groups = api.trace(huge(op))
    assert [g.units for g in groups.groups] == [8]
    assert time.process_time() - start < 5
    assert _peak() - before < 500 << 20


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# --- runs ----------------------------------------------------------------------------------------------------


def endless(count: str = f"n = Constant<value_int={ENDLESS}>()", condition: str = "h = Identity(g)") -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 4] x) => (float[2, 3] y, float[2, 4] z) {{
          a = MatMul(x, w1)
          b = Relu(a)
          y = MatMul(b, w2)
          {count}
          c = Constant<value_int=1>()
          more = Cast<to=9>(c)
          z = Loop (n, more, x) <
            body = body (int64 i, bool g, float[2, 4] s) => (bool h, float[2, 4] t) {{ {condition} t = Neg(s) }}
          >
        }}"""
    )
    for name, shape in (("w1", (4, 8)), ("w2", (8, 3))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return proto


@pytest.mark.parametrize(
    "model",
    [
        endless(),
        endless(count="n = Constant<value_int=9223372036854775807>()"),
        endless(condition="o = Constant<value_int=1>() h = Cast<to=9>(o)"),
    ],
)
def test_a_run_has_an_end(model: onnx.ModelProto) -> None:
    with Session(load(model), limit=0.5) as session, pytest.raises(RunError, match=r"did not end within 0\.5 seconds"):
        session.run({"x": np.ones((2, 4), np.float32)})


def test_a_proof_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "LONGEST_PROOF", 0.5)
    verdict = api.run(load(endless()), Options(ratio=0.5)).verdict
    assert verdict is not None
    assert not verdict.ok
    assert not verdict.runnable
    assert "did not end" in verdict.problem


def test_runs_within_the_limit() -> None:
    with Session(load(endless("n = Constant<value_int=3>()")), limit=100.0) as session:
        assert session.run({"x": np.ones((2, 4), np.float32)})[1].tolist() == [[-1.0] * 4] * 2


# --- SIGTERM -------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_run(tmp_path: Path) -> None:
    """The program is in native code that would go on for minutes; it ends at once, and leaves nothing behind."""
    onnx.save(endless(), tmp_path / "endless.onnx")
    command = [sys.executable, "-m", "onnxprune", "prune", "endless.onnx", "-o", "out.onnx", "-v"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("proving" in line for line in process.stderr)
        time.sleep(1)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert time.monotonic() - start < 5
    assert code in (-signal.SIGTERM, termination.TERMINATED)
    assert [path.name for path in tmp_path.iterdir()] == ["endless.onnx"]


STUCK = """
import signal, sys
import onnx
from onnxprune.system.termination import killable, terminate
signal.signal(signal.SIGTERM, {handler})
model = onnx.load(sys.argv[1])
print("ready", flush=True)
with killable():
    onnx.shape_inference.infer_shapes(model)
"""


@pytest.mark.parametrize(("handler", "ends"), [("terminate", True), ("lambda *_: None", False)])
def test_sigterm_ends_inference(tmp_path: Path, handler: str, ends: bool) -> None:
    """ONNX's own inference holds the interpreter's lock; a program with a handler of its own keeps it."""
    onnx.save(einsum("......ii,...jj->...ij"), tmp_path / "m.onnx")
    command = [sys.executable, "-c", STUCK.format(handler=handler), str(tmp_path / "m.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
    assert code == (-signal.SIGTERM if ends else None)


def test_the_handler_is_back_afterwards() -> None:
    before = signal.signal(signal.SIGTERM, termination.terminate)
    try:
        with pytest.raises(GoalMissed), termination.killable():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            raise GoalMissed("")
        assert signal.getsignal(signal.SIGTERM) is termination.terminate
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("op", "inputs", "outputs"),
    [("LabelEncoder", ["", "a"], 1), ("LabelEncoder", ["x"], 3), ("Binarizer", [], 1), ("TreeEnsemble", ["", "x"], 1)],
)
def test_nodes_of_onnx_ml_without_their_first_input_or_with_too_many_outputs(
    op: str, inputs: list[str], outputs: int
) -> None:
    """Their shape functions end the process."""
    net = Net(17)
    net.input([2, 3])
    net.add(op, *inputs, outputs=outputs, domain="ai.onnx.ml")
    net.outputs.append(onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]))
    with pytest.raises(ModelError, match=f"{op} .* has .* at most"):
        load(net.proto())
