"""Labels through quantised operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from onnxprune import api
from tests.graphs import two_judges
from tests.graphs.net import INT64, Net, array_of, group_of, prune
from tests.graphs.sandwich import Case, check_case, parameters

IMAGE = (2, 8, 5, 4)
MS = "com.microsoft"
INT4, UINT4, FLOAT8 = ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn


def scalars(net: Net, scale: float = 0.05, zero: Any = None) -> list[str]:
    return [net.const(np.float32(scale)), net.const(np.uint8(120) if zero is None else zero)]


def quantised(net: Net, x: str, scale: float = 0.05, zero: Any = None) -> tuple[str, list[str]]:
    given = scalars(net, scale, zero)
    return net.add("QuantizeLinear", x, *given), given


def numbers(net: Net, *shape: int, dtype: Any = np.int8, name: str = "", most: int = 60, zero: int = 0) -> str:
    """Stored numbers around a zero point, small enough not to saturate."""
    drawn = net.rng.integers(-most, most + 1, shape) + zero
    return net.const(drawn.astype(dtype), name)


def scales(net: Net, *shape: int, name: str = "", unit: float = 0.01) -> str:
    return net.const((net.rng.uniform(0.5, 2, shape) * unit).astype(np.float32), name)


# --- QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear -----------------------------------------------------


def pair(zero: Any = None, domain: str = ""):
    def build(net: Net, x: str) -> str:
        given = scalars(net, 0.02, zero)
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *given, domain=domain), *given, domain=domain)

    return build


def per_axis(axis: int, with_zero: bool = True):
    def build(net: Net, x: str) -> str:
        given = [scales(net, 8, name="c_scale")]
        if with_zero:
            given.append(numbers(net, 8, dtype=np.uint8, name="c_zero", most=9, zero=128))
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *given, axis=axis), *given, axis=axis)

    return build


def blocked(net: Net, x: str) -> str:
    given = [scales(net, 2, 5, 4, name="c_scale"), numbers(net, 2, 5, 4, dtype=np.uint8, name="c_zero", zero=128)]
    attrs = {"axis": 2, "block_size": 2}
    return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *given, **attrs), *given, **attrs)


def weight(dtype: Any, given: str = "channel", most: int = 60, zero: int = 0):
    """A product with a stored weight, 8 x 6."""

    def build(net: Net, x: str) -> None:
        w = numbers(net, 8, 6, dtype=dtype, name="c_w", most=most, zero=zero)
        shape = {"tensor": (), "channel": (6,), "block": (2, 6)}[given]
        parameters = [scales(net, *shape, name="c_scale", unit=0.3 / most)]
        if dtype is not FLOAT8:
            parameters.append(net.const(np.full(shape, zero, dtype), "c_zero"))
        attrs = {"tensor": {}, "channel": {"axis": 1}, "block": {"axis": 0, "block_size": 4}}[given]
        net.read(net.add("MatMul", x, net.add("DequantizeLinear", w, *parameters, **attrs)), 2)

    return build


def dynamic(net: Net, x: str) -> str:
    """The removed positions hold the largest values: the scale must not know of them."""
    return net.add("DequantizeLinear", *net.add("DynamicQuantizeLinear", net.add("Sigmoid", x), outputs=3))


# --- contractions ------------------------------------------------------------------------------------------------


def conv(op: str, *, out: int = 6, group: int = 1, channel: bool = True, dtype: Any = np.int8, x_type: Any = np.uint8):
    def build(net: Net, x: str) -> None:
        x, (scale, zero) = quantised(net, x, zero=x_type(7))
        zero_w = 131 if dtype is np.uint8 else 0
        w = numbers(net, out, 8 // group, 3, 3, dtype=dtype, name="c_w", zero=zero_w)
        shape = (out,) if channel else ()
        w_zero = net.const(np.full(shape, zero_w, dtype), "c_zero")
        attrs = {"group": group, "pads": [1, 1, 1, 1]}
        if op == "ConvInteger":
            y = net.cast(net.add("ConvInteger", x, w, zero, w_zero, **attrs), TensorProto.FLOAT)
            y = net.add("Mul", y, scales(net, out, 1, 1, name="c_scale", unit=1e-3))
        else:
            w_scale = scales(net, *shape, name="c_scale")
            bias = net.const(net.rng.integers(-900, 900, out).astype(np.int32), "c_bias")
            given = scalars(net, 0.1, x_type(9))
            y = net.add("QLinearConv", x, scale, zero, w, w_scale, w_zero, *given, bias, **attrs)
            y = net.add("DequantizeLinear", y, *given)
        net.read(y, 1)

    return build


def product(op: str, *, channel: bool = True, dtype: Any = np.int8, flipped: bool = False):
    def build(net: Net, x: str) -> None:
        zero_w = 131 if dtype is np.uint8 else 0
        w = numbers(net, *((6, 8) if flipped else (8, 6)), dtype=dtype, name="c_w", zero=zero_w)
        shape = (6,) if channel else ()
        w_zero, w_scale = net.const(np.full(shape, zero_w, dtype), "c_zero"), scales(net, *shape, name="c_scale")
        bias = net.weight(6, name="c_bias")
        stored = net.const(net.rng.integers(-900, 900, 6).astype(np.int32), "c_stored")
        given = scalars(net, 0.1, np.uint8(9))
        if op == "DynamicQuantizeMatMul":
            net.read(net.add(op, x, w, w_scale, w_zero, bias, domain=MS), 2)
            return
        x, (scale, zero) = quantised(net, x)
        if op == "MatMulInteger":
            y = net.cast(net.add(op, x, w, zero, w_zero), TensorProto.FLOAT)
            y = net.add("Mul", y, w_scale)
        elif op == "MatMulIntegerToFloat":
            y = net.add(op, x, w, scale, w_scale, zero, w_zero, bias, domain=MS)
        elif op == "QGemm":
            attrs = {"transB": int(flipped), "alpha": 1.0}
            y = net.add(op, x, scale, zero, w, w_scale, w_zero, stored, *given, domain=MS, **attrs)
            y = net.add("DequantizeLinear", y, *given)
        else:
            y = net.add("QLinearMatMul", x, scale, zero, w, w_scale, w_zero, *given)
            y = net.add("DequantizeLinear", y, *given)
        net.read(y, len(net.probe(y).shape) - 1)

    return build


def nbits(bits: int, zeros: str = "none", *, flat: bool = False, bias: bool = False, columns: int = 80):
    """A product with a packed weight, 80 x 6, in blocks of 16 columns."""

    def build(net: Net, x: str) -> None:
        blob = 16 * bits // 8
        w = net.const(net.rng.integers(0, 256, (6, 5, blob)).astype(np.uint8), "c_w")
        given = [scales(net, *((30,) if flat else (6, 5)), name="c_scale", unit=0.3 / 2**bits)]
        if zeros == "packed":
            size = -(-5 * bits // 8)
            point = net.rng.integers(0, 256, 6 * size if flat else (6, size)).astype(np.uint8)
            given.append(net.const(point, "c_zero"))
        elif zeros == "float":
            given.append(net.const(net.rng.integers(0, 2**bits, (6, 5)).astype(np.float32), "c_zero"))
        if bias:
            given = [*given, *[""] * (3 - len(given)), net.weight(6, name="c_bias")]
        net.read(net.add("MatMulNBits", x, w, *given, K=columns, N=6, bits=bits, block_size=16, domain=MS), 2)

    return build


# --- position by position ----------------------------------------------------------------------------------------


def qlinear(op: str, **attrs: Any):
    def build(net: Net, x: str) -> str:
        x, given = quantised(net, x)
        made = scalars(net, 0.04, np.uint8(100))
        if op in ("QLinearAdd", "QLinearMul"):
            y = net.add(op, x, *given, numbers(net, 8, dtype=np.uint8, name="c_w", zero=99), *given, *made, domain=MS)
        elif op == "QLinearConcat":
            y = net.add(op, *made, x, *given, x, *given, domain=MS, **attrs)
        elif op == "QLinearWhere":
            test = net.const(net.rng.integers(0, 2, (5, 8)).astype(bool))
            other = numbers(net, 8, dtype=np.uint8, name="c_w", zero=99)
            y = net.add(op, test, x, *given, other, *given, *made, domain=MS)
        else:
            y = net.add(op, x, *given, *made, domain=MS, **attrs)
        return net.add("DequantizeLinear", y, *made)

    return build


def embedding(dtype: Any, most: int, zero: bool) -> Any:
    def build(net: Net, x: str) -> str:
        table = numbers(net, 7, 64, dtype=dtype, name="c_w", most=most, zero=most)
        given = [scales(net, 7, 4, name="c_scale", unit=0.1)]
        if zero:
            given.append(net.const(np.full((7, 4), most, dtype), "c_zero"))
        ids = net.const(np.array([[0, 3, 5, 6, 1]]), dtype=np.int64)
        looked = net.add("GatherBlockQuantized", table, ids, *given, block_size=16, domain=MS)
        return net.add("Add", x, looked)

    return build


SCALE, ZERO, BIAS = {("c_scale", 0): 8}, {("c_zero", 0): 8}, {("c_bias", 0): 6}
MADE = {("c_w", 0): 8, ("c_w", 1): 6, ("c_scale", 0): 6, ("c_zero", 0): 6}
CONV = {("c_w", 1): 8, ("c_w", 0): 6, ("c_scale", 0): 6, ("c_zero", 0): 6, ("c_bias", 0): 6}
SINGLE = {("c_w", 0): 8, ("c_w", 1): 6}
POOL = {"since": 13, "domain": MS}
SOFTMAX = POOL | {"units": 0, "why": "softmax axis"}
PLAIN = {"out": None, "others": MADE}
PRODUCT = {"out": None, "others": MADE, "domain": MS, "since": 13}
PACKED = {"shape": (2, 5, 80), "out": None, "units": 5, "domain": MS, "since": 13}

CASES = [
    Case("QuantizeLinear", "tensor", pair(), since=10),
    Case("DequantizeLinear", "tensor", pair(np.int8(5)), since=10),
    Case("QuantizeLinear", "", pair(domain=MS), domain=MS, since=17),
    Case("DequantizeLinear", "", pair(domain=MS), domain=MS, since=17),
    Case("QuantizeLinear", "int16", pair(np.int16(5)), since=21),
    Case("QuantizeLinear", "float8", pair(FLOAT8(0)), since=19),
    Case("QuantizeLinear", "axis", per_axis(2), since=13, others=SCALE | ZERO),
    Case("DequantizeLinear", "no-zero", per_axis(-1, False), since=13, others=SCALE),
    Case("DequantizeLinear", "channels", per_axis(1), IMAGE, 1, 1, since=13, others=SCALE | ZERO),
    Case("DequantizeLinear", "block", blocked, units=4, since=21, others={("c_scale", 2): 4, ("c_zero", 2): 4}),
    Case("DequantizeLinear", "w-int8", weight(np.int8), since=13, **PLAIN),
    Case("DequantizeLinear", "w-uint8", weight(np.uint8, zero=131), since=13, **PLAIN),
    Case("DequantizeLinear", "w-single", weight(np.int8, "tensor"), since=10, out=None, others=SINGLE),
    Case("DequantizeLinear", "w-int4", weight(INT4, most=7), since=21, **PLAIN),
    Case("DequantizeLinear", "w-uint4", weight(UINT4, most=7, zero=8), since=21, **PLAIN),
    Case(
        *("DequantizeLinear", "w-float8", weight(FLOAT8)),
        since=19, out=None, others={("c_w", 0): 8, ("c_w", 1): 6, ("c_scale", 0): 6},
    ),
    *(
        Case(
            *("DequantizeLinear", f"w-{np.dtype(t).name}-block", weight(t, "block", 7)),
            since=21, out=None, units=2,
            others={("c_w", 0): 2, ("c_w", 1): 6, ("c_scale", 0): 2, ("c_scale", 1): 6, ("c_zero", 0): 2},
        )
        for t in (np.int8, INT4)
    ),
    Case("DynamicQuantizeLinear", "", dynamic, since=11, exact=False),  # its range includes 0.5 where weights are zero
    Case("QLinearConv", "", conv("QLinearConv"), IMAGE, 1, None, others=CONV, since=10),
    Case("QLinearConv", "single", conv("QLinearConv", channel=False), IMAGE, 1, None, others={("c_w", 1): 8}, since=10),
    Case("QLinearConv", "uint8", conv("QLinearConv", dtype=np.uint8), IMAGE, 1, None, others=CONV, since=10),
    Case("QLinearConv", "int8", conv("QLinearConv", x_type=np.int8), IMAGE, 1, None, others=CONV, since=10),
    Case(
        *("QLinearConv", "depthwise", conv("QLinearConv", out=8, group=8), IMAGE, 1, None),
        others={("c_w", 0): 8, ("c_scale", 0): 8, ("c_bias", 0): 8}, since=10,
    ),
    Case("QLinearConv", "groups", conv("QLinearConv", out=8, group=2), IMAGE, 1, None, units=4, since=10),
    Case(
        *("ConvInteger", "", conv("ConvInteger", channel=False), IMAGE, 1, None),
        others={("c_w", 1): 8, ("c_w", 0): 6, ("c_scale", 0): 6}, since=10,
    ),
    Case("ConvInteger", "uint8", conv("ConvInteger", channel=False, dtype=np.uint8), IMAGE, 1, None, since=10),
    Case("ConvInteger", "depthwise", conv("ConvInteger", out=8, group=8, channel=False), IMAGE, 1, None, since=10),
    Case("QLinearMatMul", "", product("QLinearMatMul"), since=10, **PLAIN),
    Case("QLinearMatMul", "uint8", product("QLinearMatMul", dtype=np.uint8), since=10, **PLAIN),
    Case("QLinearMatMul", "single", product("QLinearMatMul", channel=False), since=10, out=None, others=SINGLE),
    Case("MatMulInteger", "", product("MatMulInteger"), since=10, **PLAIN),
    Case("MatMulInteger", "uint8", product("MatMulInteger", dtype=np.uint8), since=10, **PLAIN),
    Case("MatMulIntegerToFloat", "", product("MatMulIntegerToFloat"), **{**PRODUCT, "others": MADE | BIAS}),
    Case("DynamicQuantizeMatMul", "", product("DynamicQuantizeMatMul"), **{**PRODUCT, "others": MADE | BIAS}),
    Case("QGemm", "", product("QGemm"), (5, 8), 1, **{**PRODUCT, "others": MADE | {("c_stored", 0): 6}}),
    Case(
        *("QGemm", "flipped", product("QGemm", flipped=True), (5, 8), 1, None),
        since=13, domain=MS, others={("c_w", 1): 8, ("c_w", 0): 6, ("c_scale", 0): 6},
    ),
    *(
        Case(op, "", qlinear(op), since=13, domain=MS, others={("c_w", 0): 8})
        for op in ("QLinearAdd", "QLinearMul", "QLinearWhere")
    ),
    *(Case(op, "", qlinear(op), since=13, domain=MS) for op in ("QLinearSigmoid", "QLinearLeakyRelu")),
    Case("QLinearConcat", "", qlinear("QLinearConcat", axis=1), since=13, domain=MS),
    Case("QLinearConcat", "joined", qlinear("QLinearConcat", axis=2), since=13, domain=MS),
    Case("QLinearSoftmax", "", qlinear("QLinearSoftmax", axis=-1, opset=13), **SOFTMAX),
    Case("QLinearSoftmax", "across", qlinear("QLinearSoftmax", axis=1, opset=13), since=13, domain=MS),
    Case("QLinearSoftmax", "old", qlinear("QLinearSoftmax", axis=1, opset=12), **SOFTMAX),
    Case("QLinearAveragePool", "", qlinear("QLinearAveragePool", kernel_shape=[2, 2]), IMAGE, 1, 1, **POOL),
    Case("QLinearGlobalAveragePool", "", qlinear("QLinearGlobalAveragePool"), IMAGE, 1, 1, **POOL),
    *(
        Case("MatMulNBits", f"{b}-{z}", nbits(b, z), others={("c_w", 1): 5, ("c_w", 0): 6}, **PACKED)
        for b in (4, 8)
        for z in ("none", "packed", *(["float"] if b == 4 else []))  # ONNX Runtime has no kernel for floats and 8 bits
    ),
    Case("MatMulNBits", "2", nbits(2, "packed"), **PACKED),
    Case("MatMulNBits", "flat", nbits(4, "packed", flat=True), **PACKED),
    Case("MatMulNBits", "bias", nbits(4, bias=True), others=BIAS, **PACKED),
    *(
        Case(
            *("GatherBlockQuantized", f"{np.dtype(t).name}-{zero}", embedding(t, 7, zero), (2, 5, 64)),
            domain=MS, units=4, since=21, others={("c_w", 1): 4, ("c_w", 0): "looked up", ("c_scale", 1): 4},
        )
        for t, zero in ((UINT4, True), (UINT4, False))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_quantised(case: Case, version: int) -> None:
    check_case(case, version)


def looked_up(net: Net, table: str) -> str:
    return str(net.add("Gather", table, net.input(["batch"], "ids", INT64)))


def turned(net: Net, table: str) -> str:
    """Twice, as tools for quantisation leave it."""
    return str(net.add("Transpose", net.add("Transpose", table, perm=[1, 0]), perm=[1, 0]))


def cut_out(net: Net, table: str) -> str:
    return str(net.add("Slice", table, net.ints(1), net.ints(6), net.ints(0)))


@pytest.mark.parametrize("move", [looked_up, turned, cut_out])
def test_zero_is_the_zero_point_behind_moves(move: Callable[[Net, str], str]) -> None:
    """Tools for quantisation put the dequantisation behind what only moves the stored numbers."""
    net = Net(17)
    stored = net.rng.integers(0, 256, (7, 8)).astype(np.uint8)
    table, scale, zero = (
        net.const(stored, "table"),
        net.const(np.float32(0.01), "scale"),
        net.const(np.uint8(138), "zero"),
    )
    x = net.add("DequantizeLinear", move(net, table), scale, zero)
    net.output(net.add("MatMul", x, net.weight(8, 3)), ["rows", 3])
    proto = net.proto()
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok and not outcome.rolled_back
    group = group_of(outcome.groups, "table", 1)
    assert group is not None
    step = next(s for s in outcome.plan.steps if s.group == group.name)
    assert step.exact and len(step.remove) == 4
    zeroed = array_of(api.apply(proto, outcome.plan, zero=True), "table")
    assert (zeroed[:, list(step.remove)] == 138).all()
    assert two_judges.check(proto, outcome.plan)
    value = outcome.groups.tracing.weight_value("table")
    np.testing.assert_allclose(value, (stored.astype(np.float32) - 138) * np.float32(0.01))
