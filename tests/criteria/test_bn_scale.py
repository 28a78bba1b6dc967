"""Scales of norms, and of filters that they were folded into."""

from __future__ import annotations

import numpy as np

from tests.criteria.nets import scored
from tests.graphs.net import array_of
from tests.layers.test_effective import folded, normalised


def test_bn_scale() -> None:
    apart = normalised("Conv")
    np.testing.assert_allclose(scored(apart, "bn-scale", "w", 0), np.abs(array_of(apart, "scale")), rtol=1e-6)
    weight = array_of(folded(apart), "w").reshape(8, -1)
    np.testing.assert_allclose(scored(folded(apart), "bn-scale", "w", 0), np.linalg.norm(weight, axis=1), rtol=1e-5)
