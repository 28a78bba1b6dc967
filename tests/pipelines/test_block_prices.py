"""Which blocks go where blocks and units compete, by what the outputs lose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxprune.allocation import Options
from onnxprune.model import Model, load
from onnxprune.pipelines.block_prices import BlockPrices
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.drop import dropping
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.run_inputs import RunInputs
from tests.pipelines.test_prune_drop import faint, inputs


def prices(**options: Any) -> BlockPrices:
    asked = Options(**({"params": "55%", "criterion": "obs"} | options))
    work = dropping(load(faint()), DropOptions(add_nodes=False), RunInputs(inputs()), Clock(), verify=False)
    return BlockPrices.of(work, asked, None, Clock())


@pytest.fixture(scope="module")
def usual() -> BlockPrices:
    return prices()


def test_damage_is_what_the_outputs_lose(usual: BlockPrices) -> None:
    damages = [usual.damage([block]) for block in usual.work.blocks]
    assert damages[1] < 1e-5 < min(damages[0], damages[2])
    assert usual.damage([]) == 0


def test_blocks_go_cheapest_first_until_units_are_cheaper(usual: BlockPrices) -> None:
    assert [block.name for block in usual.cheapest()] == ["layers.1"]
    assert len(prices(params="25%").cheapest()) > 1


def test_what_is_kept_stays() -> None:
    assert "layers.1" not in [block.name for block in prices(keep=["layers.1.up.weight"]).cheapest()]


def test_outputs_that_are_no_numbers_are_the_dearest(usual: BlockPrices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pipelines.block_prices.output_error", lambda *given: np.nan)
    assert usual.damage(usual.work.blocks[:1]) > 1e20


class Clocked:
    """A timer by which a run takes as many seconds as a model has nodes."""

    def __init__(self, whole: Model) -> None:
        self.before = self.seconds(whole)

    def seconds(self, model: Model) -> float:
        return float(len(model.proto.graph.node))


@pytest.mark.parametrize(("share", "quick"), [("95%", True), ("40%", False)])
def test_a_budget_on_time_is_measured_without_blocks(usual: BlockPrices, share: str, quick: bool) -> None:
    """As soon as it holds no other block goes, whatever tables expect."""
    fitter: Any = replace(usual.fitter, timer=Clocked(usual.work.model))
    for options, wanted in (({"latency": share}, quick), ({"latency": share, "params": "99%"}, False)):
        timed = replace(usual, options=Options(criterion="obs", **options), fitter=fitter)
        assert timed._is_quick(usual.work.blocks[:1]) is wanted
    assert not usual._is_quick(usual.work.blocks[:1]), "no budget is on time"


def test_blocks_stop_going_when_the_time_is_reached(usual: BlockPrices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockPrices, "_cheapest", lambda self, parts: 0 if not parts[0].gone else None)
    assert len(usual.cheapest()) == len(usual.work.blocks)
    monkeypatch.setattr(BlockPrices, "_is_quick", lambda self, gone: len(gone) == 2)
    assert len(usual.cheapest()) == 2
