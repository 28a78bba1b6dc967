"""A decoder of 4 GiB with external data is pruned in less memory than 1.5 GiB."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from tests.graphs import make_decoder
from tests.measure import bench

pytestmark = pytest.mark.long

GIB = 4.0
LIMIT_BYTES = 3 << 29


def test_memory_is_bounded_by_tensors_not_by_the_model(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 2 * GIB * 2**30:
        pytest.skip(f"needs {2 * GIB:.0f} GiB of free disk at {tmp_path}")
    source, target = tmp_path / "decoder.onnx", tmp_path / "small.onnx"
    size = make_decoder.make(source, GIB)
    cost = bench.process_cost(bench.prune_command(source, target))
    assert target.with_name("small.onnx.data").stat().st_size < 0.4 * size
    assert cost.rss < LIMIT_BYTES, f"peak memory {cost.rss / 2**30:.2f} GiB"
    onnx.checker.check_model(str(target))


def test_decoder_is_a_valid_model_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import onnxruntime

    for name, value in (("HIDDEN", 64), ("HEADS", 4), ("INNER", 96), ("VOCABULARY", 100)):
        monkeypatch.setattr(make_decoder, name, value)
    path = tmp_path / "decoder.onnx"
    make_decoder.make(path, 0.0003)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input_ids": np.arange(12).reshape(2, 6)})
    assert logits.shape == (2, 6, 100)
    assert np.isfinite(logits).all()
