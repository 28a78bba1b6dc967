"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from onnxprune import api
from tests.graphs.net import prune
from tests.proof.proven import network


@pytest.fixture(scope="module")
def outcome() -> api.Outcome:
    return prune(network())
