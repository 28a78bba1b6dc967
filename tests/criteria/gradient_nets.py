"""Nets whose gradients are known."""

from __future__ import annotations

GRADIENT = ("taylor", "taylor-weight", "fisher")
