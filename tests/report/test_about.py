"""Where a result comes from."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from onnxprune.report.about import provenance


def test_the_command_versions_and_hashes(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"model")
    files = {"model": str(tmp_path / "m.onnx"), "output": "-", "plan": None, "gone": str(tmp_path / "gone")}
    found = provenance(["onnxprune", "prune", "my model.onnx"], files)
    assert found["command"] == "onnxprune prune 'my model.onnx'"
    assert found["versions"]["onnx"] == version("onnx") and "python" in found["versions"]
    assert found["files"] == [
        {
            "role": "model",
            "path": str(tmp_path / "m.onnx"),
            "bytes": 5,
            "sha256": hashlib.sha256(b"model").hexdigest(),
        }
    ]
