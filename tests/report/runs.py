"""Results of the verbs on the example models, each made once."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from onnxprune.model import load
from onnxprune.pipelines.run_inputs import RunInputs

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """What a program reads: plain JSON without NaN, which comes back as it is."""
    return json.loads(json.dumps(document, allow_nan=False))


@functools.cache
def sparsified(**options: Any) -> Any:
    from onnxprune.pipelines.sparsify import sparsified as run
    from onnxprune.sparsity import SparsifyOptions

    return run(load(DIGITS), SparsifyOptions(**options))


@functools.cache
def dropped() -> Any:
    from onnxprune.pipelines.drop import drop_blocks
    from onnxprune.pipelines.drop_options import DropOptions

    return drop_blocks(load(DIGITS), DropOptions(count=1))


@functools.cache
def compressed() -> Any:
    from onnxprune.pipelines.compress import compressed as run

    return run(load(DIGITS))


@functools.cache
def factorised() -> Any:
    from onnxprune.pipelines.low_rank import LowRankOptions
    from onnxprune.pipelines.low_rank import factorised as run

    return run(load(DIGITS), LowRankOptions(ratio=0.5), RunInputs())


@functools.cache
def shrunk() -> Any:
    from onnxprune.pipelines.shrink import shrink_model

    return shrink_model(load(DIGITS))
