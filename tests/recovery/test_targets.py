"""How many rows a target is fitted to, and masks of what remains of a layer."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.recovery.targets import ROWS, ROWS_PER_INPUT, WIDEST, FitEvidence, KeptMask

RUNS = [[([], []), ([], [])], [], [([], []), ([], [])]]


@pytest.mark.parametrize(
    ("groups", "width", "rows"),
    [
        (1, 1, ROWS),  # a norm, of one input per channel
        (1, 4096, ROWS),
        (32, 9, 9 * ROWS_PER_INPUT),  # by depth
        (1, 2 * WIDEST, WIDEST // 2),  # as many numbers as the moments of the widest have
        (1024, 9, WIDEST**2 // 9216),
    ],
)
def test_rows_go_by_the_inputs_of_a_group_and_are_shared_by_runs_and_visits(groups: int, width: int, rows: int):
    found = list(FitEvidence(RUNS, 2, (1e-3,)).visits(groups, width))
    assert [(judges, len(visits)) for judges, visits, _ in found] == [(False, 2), (False, 0), (True, 2)]
    assert [most for *_, most in found] == [rows // 4, rows // 2, rows // 4]


def test_masks_are_equal_if_all_their_parts_are():
    def mask(last: bool) -> KeptMask:
        return KeptMask(np.ones(1, bool), np.array([[True, False]]), np.array([[True, last]]))

    assert mask(True).equals(mask(True)) and not mask(True).equals(mask(False))
    assert mask(True).of_remaining().equals(mask(True))
