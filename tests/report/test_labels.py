"""Labels leave out what all names have in common."""

from __future__ import annotations

import pytest

from onnxprune.report.labels import short_labels


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["Call/model/conv/Add", "Call/model/conv_1/Add"], ["conv/Add", "conv_1/Add"]),
        (
            ["/features/0/Conv", "/features/1/Conv", "/head/Gemm"],
            ["/features/0/Conv", "/features/1/Conv", "/head/Gemm"],
        ),
        (["a/x", "a/y", "a/z", "a/w", "3 more layers"], ["x", "y", "z", "w", "3 more layers"]),
        (["a/x", "b/y"], ["a/x", "b/y"]),
        (["a/x", "Conv_1", "Conv_2"], ["a/x", "Conv_1", "Conv_2"]),
        (["a/x"], ["a/x"]),
        ([], []),
    ],
)
def test_the_path_that_names_share_is_left_out(names, labels):
    assert short_labels(names) == labels
