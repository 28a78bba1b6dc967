"""What dropping blocks gave: which of all blocks went."""

from __future__ import annotations

from tests.pipelines.test_drop import dropped, residual


def test_the_blocks_that_went_are_among_all() -> None:
    done = dropped(residual(3).proto(), count=2)
    assert len(done.dropped) == 2 and all(scored in done.blocks and scored.dropped for scored in done.dropped)
    assert [scored.block.name for scored in done.blocks if not scored.dropped and scored.block.kind == "block"]
    assert done.after.params == done.before.params - sum(scored.params for scored in done.dropped)


def test_what_may_not_go_says_why() -> None:
    done = dropped(residual(3).proto(), count=1, keep=["layers.0*"])
    kept = [scored for scored in done.blocks if scored.why]
    assert kept and not any(scored.dropped for scored in kept)
