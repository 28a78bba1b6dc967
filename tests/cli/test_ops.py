"""`ops`: operators that are known."""

from __future__ import annotations


def test_ops(run):
    assert "BatchNormalization" in run("ops").out
    ran = run("ops", "conv*")
    assert "ConvTranspose" in ran.out and "Gemm" not in ran.out
    listed = run("ops", "--json", "Conv").json["operators"]
    assert listed == [listed[0]] and listed[0]["op"] == "Conv" and listed[0]["summary"]
    ran = run("ops", "nonzero")
    assert "what it returns are positions" in ran.out
    assert run("ops", "--json", "NonZero").json["whole"] == {"NonZero": "what it returns are positions"}
    assert run("ops", "Nonsense").code == 2
