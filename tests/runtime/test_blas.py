"""Threads of linear algebra: one for small matrices, all cores for wide ones, and the caller's own behind the block."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from onnxprune.runtime import blas, blas_threads


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_one_thread_unless_matrices_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "cores", lambda: 2)
    with threadpool_limits(3, user_api="blas"):
        assert np.ones((2, 2)).sum() == 4 and threads() == {3}
        with blas_threads():
            assert threads() == {1}
            with blas_threads(blas.WIDE):
                assert threads() == {2}
            assert threads() == {1}
        assert threads() == {3}


def test_a_function_runs_with_one_thread() -> None:
    with threadpool_limits(2, user_api="blas"):
        assert blas_threads()(threads)() == {1} and threads() == {2}
