"""Energy of runs, from the counters that processors have of it (RAPL).

Source: Linux, Documentation/power/powercap/powercap.rst. `energy_uj` counts microjoules up to `max_energy_range_uj`,
and begins again at 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Where Linux shows the counters, of Intel's processors and of AMD's.
POWERCAP = Path("/sys/class/powercap")
ZONES = "intel-rapl:*"
# The zones that add up: a package holds its cores, "psys" holds the packages.
PACKAGE, MEMORY_CHIPS = "package", "dram"
# Seconds between two readings: a counter of 32 bits begins again after minutes.
STRETCH = 1.0
# Fewest seconds that are measured: counters are brought up to date every millisecond.
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Energy:
    """What a run takes.

    Attributes:
        joules: of a run, of all samples in it.
        watts: on average; None for an estimate.
        estimated: whether it is computed from what the model does, not measured.
        source: the counters, or what the estimate is made of.
    """

    joules: float
    watts: float | None
    estimated: bool
    source: str


@dataclass(frozen=True)
class PowerZone:
    """A part of the machine that has a counter.

    Attributes:
        name: what Linux calls it: "package-0", "dram".
        counter: the file of its microjoules.
        overflow: microjoules after which the counter begins again.
    """

    name: str
    counter: Path
    overflow: int

    def read(self) -> int:
        """Microjoules, from any beginning."""
        return int(self.counter.read_text(encoding="ascii"))


def power_zones(folder: Path | None = None) -> list[PowerZone]:
    """Find the counters of packages and memory.

    Args:
        folder: where Linux shows them; `POWERCAP` if None.

    Returns:
        Those that this process may read; none unless all can be read, since a part of the energy is no energy.
    """
    zones = []
    for place in sorted((folder or POWERCAP).glob(ZONES)):
        try:
            name = (place / "name").read_text(encoding="ascii").strip()
            if name.startswith(PACKAGE) or name == MEMORY_CHIPS:
                overflow = int((place / "max_energy_range_uj").read_text(encoding="ascii"))
                zones.append(PowerZone(name, place / "energy_uj", overflow))
                zones[-1].read()
        except (OSError, ValueError):
            return []
    return zones


class EnergyCounter:
    """Joules of several zones since the counter was made; read at least once before a zone begins again."""

    def __init__(self, zones: Sequence[PowerZone]) -> None:
        self._zones, self._last = zones, [zone.read() for zone in zones]
        self._microjoules = 0

    def read(self) -> float:
        """Joules so far."""
        now = [zone.read() for zone in self._zones]
        for zone, before, after in zip(self._zones, self._last, now, strict=True):
            self._microjoules += after - before + (zone.overflow if after < before else 0)
        self._last = now
        return self._microjoules * 1e-6


def measured_energy(run: Callable[[], object], zones: Sequence[PowerZone], *, seconds: float = 2.0) -> Energy:
    """Measure what a run takes, over as many runs as fit into a time.

    Args:
        run: what is measured. Whatever else the machine does meanwhile counts, too.
        zones: the counters.
        seconds: of runs.

    Returns:
        The energy of one run.
    """
    run()
    counter, runs, joules, taken, begun = EnergyCounter(zones), 0, 0.0, 0.0, time.perf_counter()
    while taken < max(seconds, LEAST_SECONDS):
        until = min(taken + STRETCH, max(seconds, LEAST_SECONDS))
        while taken < until:
            run()
            runs += 1
            taken = time.perf_counter() - begun
        joules = counter.read()
    return Energy(joules / runs, joules / taken, False, f"measured by {', '.join(zone.name for zone in zones)}")
