"""What holds for all tests."""

from __future__ import annotations

import os

# Before numpy is imported: the workers of a parallel run would fight over the cores, and take three times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
