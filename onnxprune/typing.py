"""Types that all packages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]
# Input name -> array: the inputs of one run.
Feeds = Mapping[str, Array]
# Those of several runs.
Runs = Sequence[Feeds]
# Graph input -> the least and the largest number that it is ever given.
Ranges = Mapping[str, tuple[float, float]]
