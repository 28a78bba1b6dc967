"""Types that all packages share."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]
