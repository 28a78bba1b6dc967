"""Which layers compute in whole numbers within a budget on time.

The two ends are all layers and none. Between them stay in whole numbers only the layers whose kernels are faster so,
and of these the ones that lose least for every second that they save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from onnxprune.cost import AxisLengths, latency, units_in_order
from onnxprune.progress import Progress
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups


def saved_seconds(groups: Groups, place: Place, progress: Progress) -> dict[str, float]:
    """Measure what every layer saves in the form in which the model is run.

    Args:
        groups: the traced model.
        place: where it is run, and in which form.
        progress: is told about every stage.

    Returns:
        Name of a layer -> seconds of a run, below 0 where the layer becomes slower.

    Raises:
        RunError: the model does not run.
    """
    order = {group.name: units_in_order(group, np.zeros(groups.classes.count)) for group in groups.groups}
    places = replace(place, deployed=None), place
    before, after = (
        latency.Timer(groups.model, where, progress).expected(AxisLengths(groups, order)).layers for where in places
    )
    return {name: seconds - after[name] for name, seconds in before.items() if name in after}


def layers_in_float(saved: Mapping[str, float], lost: Mapping[str, float]) -> Sequence[tuple[str, ...]]:
    """Lay out choices of the layers that stay in float.

    Args:
        saved: layer -> seconds that whole numbers save.
        lost: layer -> what they do to the outputs; every layer is here.

    Returns:
        The choices, each once: no layer; those that whole numbers do not make faster; those, and as many of the others
        as leave half of the time saved; all.
    """
    faster = sorted((n for n in lost if saved.get(n, 0.0) > 0), key=lambda name: lost[name] / saved[name])
    total = sum(saved[name] for name in faster)
    reached = accumulate(saved[name] for name in faster)
    half = [name for name, seconds in zip(faster, reached, strict=True) if seconds - saved[name] < total / 2]
    choices: Sequence[Sequence[str]] = (list(lost), faster, half, ())
    return list(dict.fromkeys(tuple(name for name in lost if name not in whole) for whole in choices))
