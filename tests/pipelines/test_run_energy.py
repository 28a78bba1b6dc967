"""The energy of a run: by counters where there are some, else an estimate that says so."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost import estimate_energy
from onnxprune.model import load
from onnxprune.pipelines.run_energy import energy_of
from onnxprune.runtime import Setting, energy
from tests.runtime.clocks import DIGITS
from tests.runtime.power import burning, zone

FEEDS = {"image": np.zeros((4, 1, 8, 8), np.float32)}


def test_counters_are_read_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with burning(zone(tmp_path, "intel-rapl:0", "package-0", 0), 20):
        found = energy_of(load(DIGITS), Setting(threads=1), FEEDS, seconds=0.5)
    assert not found.estimated and found.watts == pytest.approx(20, rel=0.25)
    assert 0 < found.joules < 20 * 0.5


def test_an_estimate_is_called_one(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    model = load(DIGITS)
    found = energy_of(model, Setting(threads=1), FEEDS)
    assert (
        found.estimated and found.watts is None and found.source.startswith("an estimate, no measurement (no counter")
    )
    symbol = model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert found.joules == estimate_energy(model, {symbol: 4}).joules > estimate_energy(model, {symbol: 1}).joules


def test_the_processors_counters_do_not_see_other_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    setting = Setting(threads=1)
    object.__setattr__(setting, "provider", "ElsewhereExecutionProvider")
    found = energy_of(load(DIGITS), setting, FEEDS)
    assert found.estimated and "do not see what ElsewhereExecutionProvider does" in found.source
