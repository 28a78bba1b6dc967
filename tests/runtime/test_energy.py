"""Energy by the counters of the processor, on a folder that stands in for the machine's."""

from __future__ import annotations

import pytest

from onnxprune.runtime import energy
from onnxprune.runtime.energy import EnergyCounter, measured_energy, power_zones
from tests.runtime.power import advance, burning, zone


def test_packages_and_memory_count_once(tmp_path):
    """Cores are a part of their package, "psys" is all packages, and the same package stands under another driver."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:0:1", "dram", 7)
    zone(tmp_path, "intel-rapl:1", "package-1", 9)
    zone(tmp_path, "intel-rapl:2", "psys", 9)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5)
    (tmp_path / "intel-rapl").mkdir()
    zones = power_zones(tmp_path)
    assert [(z.name, z.read()) for z in zones] == [("package-0", 5), ("dram", 7), ("package-1", 9)]


@pytest.mark.parametrize("flaw", ["nothing", "no folder", "not readable", "no number"])
def test_a_part_of_the_energy_is_none(tmp_path, flaw):
    """A folder in the place of the file is refused to everyone, as the file is to all but root."""
    if flaw == "no folder":
        assert power_zones(tmp_path / "none") == []
    if flaw in ("not readable", "no number"):
        zone(tmp_path, "intel-rapl:0", "package-0", 5)
        other = zone(tmp_path, "intel-rapl:1", "package-1", 5)
        assert len(power_zones(tmp_path)) == 2
        other.unlink()
        other.mkdir() if flaw == "not readable" else other.write_text("-", encoding="ascii")
    assert power_zones(tmp_path) == []


def test_a_counter_that_begins_again(tmp_path):
    overflow = 1000
    first = zone(tmp_path, "intel-rapl:0", "package-0", 900, overflow)
    second = zone(tmp_path, "intel-rapl:0:0", "dram", 10)
    counter = EnergyCounter(power_zones(tmp_path))
    assert counter.read() == 0
    for sum_ in (240e-6, 480e-6, 720e-6, 960e-6, 1200e-6):
        advance(first, 200, overflow)
        advance(second, 40)
        assert counter.read() == pytest.approx(sum_)


def test_energy_of_a_run(tmp_path, monkeypatch):
    """Every run burns 3 mJ of one package and 1 mJ of the memory; the package begins again on the way."""
    overflow = 1_000_000
    package = zone(tmp_path, "intel-rapl:0", "package-0", 999_000, overflow)
    memory = zone(tmp_path, "intel-rapl:0:0", "dram", 0)
    monkeypatch.setattr(energy, "STRETCH", 0.01)

    def run() -> None:
        advance(package, 3000, overflow)
        advance(memory, 1000)

    found = measured_energy(run, power_zones(tmp_path), seconds=0.0)
    assert found.joules == pytest.approx(4e-3)
    assert not found.estimated and found.watts is not None and found.watts > 0
    assert found.source == "measured by package-0, dram"


def test_watts(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with burning(counter, 50):
        found = measured_energy(lambda: None, power_zones(tmp_path), seconds=0.5)
    assert found.watts == pytest.approx(50, rel=0.2)
