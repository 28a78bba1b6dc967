"""The learning rate of a run: found by short runs from the first weights, in which the rate falls to zero too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

# Rates that are tried, and the one that is tried first; AdamW's.
LADDER, FIRST = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2), 3
# Optimizer -> what its rates are, in those of AdamW.
FACTORS = {"sgd": 30.0, "relative": 10.0}
# Steps of a trial: a share of all, at least and at most so many. In few, every rate that is worth having does harm.
SHARE, LEAST, MOST = 0.2, 5, 150
# What a higher rate than the best one must gain, of that one's gain: in a longer run, a higher rate does better.
PROMISING = 1 / 3


def trial_steps(steps: int) -> int:
    """Count the steps of a trial.

    Args:
        steps: of the run.

    Returns:
        Steps.
    """
    return max(LEAST, min(MOST, round(steps * SHARE)))


def rate_by_trials(
    found: MutableMapping[float, float], before: float, tried: Callable[[float], float], optimizer: str
) -> float:
    """Find a rate.

    From the first rate on they rise as long as that does better; if it never did, they fall as long as that does.

    Args:
        found: rate -> loss on held-out samples after a trial; of those that were tried already. Further ones are added.
        before: the loss before any step.
        tried: makes a trial.
        optimizer: name of what makes the steps.

    Returns:
        The highest rate whose trial gains much of what the best one gains; the best one where none gains.
    """
    rates = [rate * FACTORS.get(optimizer, 1.0) for rate in LADDER]

    def loss(place: int) -> float:
        if rates[place] not in found:
            found[rates[place]] = tried(rates[place])
        return found[rates[place]]

    def climbed(direction: int) -> int:
        place = FIRST
        while 0 <= place + direction < len(rates) and loss(place + direction) < loss(place):
            place += direction
        return place

    if loss(FIRST) >= before or climbed(1) == FIRST:
        climbed(-1)
    return most_promising(found, before)


def most_promising(found: Mapping[float, float], before: float) -> float:
    """Choose among rates that were tried.

    Args:
        found: rate -> loss after a trial.
        before: the loss before any step.

    Returns:
        The highest rate whose trial gains much of what the best one gains; the best one where none gains.
    """
    gains = {rate: before - loss for rate, loss in found.items()}
    best = max(gains, key=lambda rate: gains[rate])
    return max(rate for rate, gain in gains.items() if gain >= PROMISING * gains[best]) if gains[best] > 0 else best
