"""The energy of a run: measured where the machine has counters, else estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnxprune.cost import estimate_energy
from onnxprune.model import Model, load
from onnxprune.model.shapes.symbols import sizes_of
from onnxprune.runtime import CPU_PROVIDER, Deployed, Energy, Setting, measured_energy, power_zones
from onnxprune.runtime.bench import Place, Result, feeds_of
from onnxprune.typing import Feeds

# What an estimate is made of, and why it is one.
ESTIMATE = (
    "an estimate, no measurement ({why}): multiply-accumulates and bytes moved, in picojoules of Horowitz 2014; it "
    "compares models, and is no prediction for a machine"
)
NO_COUNTERS = "no counters that this process may read under /sys/class/powercap"
OTHER_PROVIDER = "the processor's counters do not see what {provider} does"


def with_energy(
    results: Sequence[Result], sources: Sequence[Any], *, place: Place | None = None, seconds: float = 2.0
) -> list[Result]:
    """Add the energy of a run to what was measured of models.

    Args:
        results: what `bench` gave for them.
        sources: the models: paths, bytes, ModelProtos, or what else `model.load` takes.
        place: where they ran.
        seconds: of runs that are measured, for every model and batch.

    Returns:
        The results, every timing with its energy.
    """
    where, added = place or Place(), []
    for result, model in zip(results, map(load, sources), strict=True):
        batches = [feeds_of(model, where, timing.batch) for timing in result.timings]
        energies = [energy_of(model, where.setting, feeds, seconds=seconds) for feeds in batches]
        timings = [replace(t, energy=energy) for t, energy in zip(result.timings, energies, strict=True)]
        added.append(replace(result, timings=tuple(timings)))
    return added


def energy_of(model: Model, setting: Setting, feeds: Feeds, *, seconds: float = 2.0) -> Energy:
    """Measure the energy of a run by the counters of the processor, or estimate it where there are none.

    Args:
        model: the model.
        setting: provider and threads.
        feeds: inputs of a run.
        seconds: of runs that are measured.

    Returns:
        The energy, and how it is known.
    """
    zones = power_zones()
    if zones and setting.provider == CPU_PROVIDER:
        with Deployed(model, setting) as session:
            return measured_energy(lambda: session.run(feeds), zones, seconds=seconds)
    sizes = sizes_of(model.proto.graph, {name: array.shape for name, array in feeds.items()})
    why = OTHER_PROVIDER.format(provider=setting.provider) if zones else NO_COUNTERS
    return Energy(estimate_energy(model, sizes).joules, None, True, ESTIMATE.format(why=why))
