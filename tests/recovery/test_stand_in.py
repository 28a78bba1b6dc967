"""What stands in for a block."""

from __future__ import annotations

from onnxprune.model import to_proto
from tests.pipelines.test_drop import assert_equal, data_of, dropped, residual, without_branch


def test_what_stands_for_a_block_gives_most_back():
    """A block that is nearly linear can be replaced by what is fitted; the proofs hold before and after."""
    proto = residual(3, act="Identity").proto()
    found = dropped(proto, data_of(proto), blocks=("layers.1",))
    assert found.bare is not None and found.judged is not None
    assert found.judged.error < 1e-3 * found.bare.error
    assert found.repaired_verdict is not None and found.repaired_verdict.ok
    assert found.stand_ins[0].form != "none"


def test_without_recovery_nothing_is_fitted():
    proto = residual().proto()
    found = dropped(proto, data_of(proto), blocks=("layers.1",), recover=False)
    assert found.stand_ins == () and found.repaired_verdict is None and found.judged == found.bare
    assert_equal(without_branch(proto, "layers.1.down.weight"), to_proto(found.model))
