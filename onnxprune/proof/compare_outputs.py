"""The difference between two results of a run: arrays, sequences and maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

# What a value is divided by at least, so that two zeros are equal.
SMALLEST = 1e-12


def differences(names: Sequence[str], wanted: Sequence[object], found: Sequence[object]) -> dict[str, float]:
    """`difference` by name."""
    return {name: difference(a, b) for name, a, b in zip(names, wanted, found, strict=True)}


def difference(wanted: object, found: object) -> float:
    """How far two outputs are apart.

    Largest |difference| over largest |wanted| for floats, the share of unequal elements for other types; the largest
    over all elements of a sequence or map. Infinite where shapes, lengths, keys or non-finite values differ.
    """
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        if wanted.keys() != found.keys():
            return math.inf
        return difference(np.asarray(list(wanted.values())), np.asarray([found[k] for k in wanted]))
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return math.inf
        return max((difference(a, b) for a, b in zip(wanted, found, strict=True)), default=0.0)
    left, right = np.asarray(wanted), np.asarray(found)
    if left.shape != right.shape:
        return math.inf
    if not left.size:
        return 0.0
    if not is_real(left):
        return float(np.mean(left != right))
    return _of_reals(left, right)


def magnitude(value: object) -> float:
    """What `difference` divides by: the largest magnitude of an array of finite floats, 1.0 for any other output."""
    found = np.asarray(value) if not isinstance(value, (Mapping, list)) else np.zeros(0, bool)
    if not found.size or not is_real(found) or not math.isfinite(most := _largest(found.astype(np.float64))):
        return 1.0
    return max(most, SMALLEST)


def is_real(value: np.ndarray) -> bool:
    """Whether an array holds floats, bfloat16 among them."""
    return value.dtype.kind in "fV" or value.dtype.name == "bfloat16"


def _of_reals(left: np.ndarray, right: np.ndarray) -> float:
    kind = left.dtype if left.dtype == right.dtype and left.dtype in (np.float32, np.float64) else np.float64
    a, b = left.astype(kind, copy=False), right.astype(kind, copy=False)
    with np.errstate(all="ignore"):
        apart, most = _largest(a - b), _largest(a)
    if math.isfinite(apart) and math.isfinite(most):
        return apart / max(most, SMALLEST)
    odd = ~np.isfinite(a)
    if (odd != ~np.isfinite(b)).any() or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf
    a, b = a[~odd].astype(np.float64), b[~odd].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), SMALLEST)) if a.size else 0.0


def _largest(value: np.ndarray) -> float:
    """The largest magnitude; NaN where there is one."""
    return float(np.maximum(value.max(), -value.min())) + 0.0  # which makes 0 of -0
