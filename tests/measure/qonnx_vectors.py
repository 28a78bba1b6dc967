"""What the package `qonnx` makes of random inputs of its quantisers, as JSON: `python -m tests.measure.qonnx_vectors`.

It needs `pip install qonnx` (1.0.0), which nothing else does. `--write FILE` puts the vectors where a test reads them.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

ROUNDINGS = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
SCALES: tuple[Any, ...] = (0.25, 0.5, 1.0, [[0.25], [0.5], [2.0]])


def made(op: str, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
    """What the package computes."""
    given = [np.asarray(value, np.float32) for value in inputs]
    rounding = attributes.get("rounding_mode", "")
    if op == "BipolarQuant":
        return np.asarray(importlib.import_module("qonnx.custom_op.general.bipolar_quant").binary_quant(*given))
    if op == "Trunc":
        trunc = importlib.import_module("qonnx.custom_op.general.trunc")
        if len(given) == 5:
            return np.asarray(trunc.trunc_v1(*given, rounding))
        limits = {name: attributes[name] for name in ("narrow", "signed")}
        x, scale, zero, before, output_scale, after = given
        values = {"output_scale": output_scale, "output_bit_width": after, "rounding_mode": rounding, **limits}
        return np.asarray(trunc.trunc_v2(x, scale, zero, before, **values))
    quant = importlib.import_module("qonnx.custom_op.general.intquant").int_quant
    return np.asarray(quant(*given, attributes["signed"], attributes["narrow"], rounding))


def vectors(seed: int = 0) -> list[dict[str, Any]]:
    """Random inputs, in eighths of a step or less, with all kinds of attributes; what float32 holds exactly."""
    rng, found = np.random.default_rng(seed), []
    for number in range(96):
        op = ("Quant", "Quant", "IntQuant", "Trunc", "Trunc", "BipolarQuant")[number % 6]
        scale = SCALES[rng.integers(len(SCALES))]
        x = (rng.integers(-160, 161, (3, 6)) / 16).tolist()
        zero = float(rng.integers(-2, 4)) if rng.random() < 0.4 else 0.0
        attributes: dict[str, Any] = {"rounding_mode": ROUNDINGS[number // 6 % 8]}
        limits = {"signed": int(rng.integers(2)), "narrow": int(rng.integers(2))}
        if op == "BipolarQuant":
            attributes, inputs = {}, [x, scale]
        elif op == "Trunc" and number % 6 == 3:
            inputs = [x, scale, zero, 8.0, float(rng.integers(4, 8))]
        elif op == "Trunc":
            attributes |= limits
            inputs = [x, 0.25, zero, 8.0, float(2.0 ** rng.integers(-1, 2)), float(rng.integers(2, 6))]
        else:
            attributes |= limits
            inputs = [x, scale, zero, float(rng.integers(1, 7))]
        wanted = made(op, inputs, attributes).astype(np.float32).tolist()
        found.append({"op": op, "inputs": inputs, "attributes": attributes, "output": wanted})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="FILE")
    given = parser.parse_args()
    text = "[\n" + ",\n".join(json.dumps(vector) for vector in vectors()) + "\n]\n"
    if given.write:
        Path(given.write).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
