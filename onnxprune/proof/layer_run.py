"""Runs of a pruned model whose layers read the masked original's values: errors, and the noise to expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.model import Model
from onnxprune.proof import strength as strengths
from onnxprune.proof.compare_outputs import differences, magnitude
from onnxprune.proof.layerwise import Layered
from onnxprune.proof.strength import Sample, Strength
from onnxprune.rewriting import Removal, io_changes
from onnxprune.runtime import Session

# About one rounding error, by type, and how often one is drawn.
NUDGES: Mapping[str, float] = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}
NOISE_DRAWS = 3


@dataclass(frozen=True)
class LayerRun:
    """Runs of a pruned model whose layers read the masked original's values."""

    removal: Removal
    feeds: Mapping[str, np.ndarray]
    wanted: Mapping[str, object]
    layered: Layered
    samples: Sequence[Sample]

    @property
    def model(self) -> Model:
        """What is run."""
        return strengths.with_weights_as_inputs(self.layered.model, self.samples)

    @cached_property
    def given(self) -> dict[str, np.ndarray]:
        """Its inputs, without the sampled weights."""
        layers = {name: np.asarray(self.wanted[name]) for name in (*self.layered.made, *self.layered.given)}
        return {**io_changes.feeds(self.removal, self.feeds), **layers}

    def run(self, session: Session, given: Mapping[str, np.ndarray], *, wrong: bool = False) -> list[object]:
        """All that is compared."""
        weights = dict(strengths.inputs(self.samples, wrong=wrong))
        return session.run({**given, **weights}, list(self.layered.ends.values()))

    def errors(self, session: Session, given: Mapping[str, np.ndarray]) -> dict[str, float]:
        """How far every output and every layer is off."""
        ends = list(self.layered.ends)
        return differences(ends, [self.wanted[n] for n in ends], self.run(session, given))

    def noise(self, session: Session, seed: int) -> dict[str, float]:
        """How far everything moves when the floats that are given move by a rounding error, as `errors` measures it.

        Where the masked original has zeros, the pruned model may have rounding errors of them.
        """
        rng = np.random.default_rng([seed, 1])
        ends, still = list(self.layered.ends), self.run(session, self.given)
        moved = dict.fromkeys(ends, 0.0)
        for _ in range(NOISE_DRAWS):
            again = self.run(session, {name: _nudged(x, rng) for name, x in self.given.items()})
            for name, error in differences(ends, still, again).items():
                moved[name] = max(moved[name], error)
        sizes = {name: magnitude(here) / magnitude(self.wanted[name]) for name, here in zip(ends, still, strict=True)}
        return {name: error * sizes[name] for name, error in moved.items()}

    def strength(self, session: Session, allowed: Mapping[str, float]) -> Strength:
        """How many of the samples are noticed."""
        made = dict(zip(self.layered.ends, self.run(session, self.given, wrong=True), strict=True))
        reached = [name for sample in self.samples for name in sample.reach]
        wanted, found = [self.wanted[n] for n in reached], [made[n] for n in reached]
        return strengths.strength(self.removal, self.samples, differences(reached, wanted, found), allowed)


def _nudged(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same but for about one rounding error."""
    nudge = NUDGES.get(value.dtype.name)
    if nudge is None:
        return value
    return np.asarray(value * (1 + nudge * rng.uniform(-1, 1, value.shape))).astype(value.dtype)
