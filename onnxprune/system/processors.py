"""The cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# What the container may use: of all of its cores ("200000 100000" for two), or "max".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Count the cores that this process may use: by its affinity, and by the quota of its container.

    Returns:
        At least 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, quota() or allowed))


def quota() -> int | None:
    """Count the cores that the container grants, rounded up.

    Returns:
        None where there is no container, or it grants all.
    """
    try:
        granted, period = map(int, _QUOTA.read_text(encoding="ascii").split())
        return math.ceil(granted / period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
