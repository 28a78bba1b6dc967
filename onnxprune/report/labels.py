"""Names of layers as labels of a drawing, where there is little room."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

# Share of the names that a path must lead to be left out: names of other exporters' nodes may stand between them.
MOST = 0.8


def short_labels(names: Sequence[str]) -> list[str]:
    """Leave out the path that nearly all names begin with.

    Args:
        names: of layers, with `/` between the parts of a path: `StatefulPartitionedCall/model/conv_1`.

    Returns:
        A label for each name, `conv_1`; names that do not begin with the path stay whole.
    """
    paths = [name for name in names if "/" in name]
    if len(paths) < max(2, MOST * len(names)):
        return list(names)
    # `commonpath` refuses paths with and without a slash in front, which one model may have.
    shared = commonprefix(paths).rpartition("/")[0]  # noqa: RUF071
    return [name.removeprefix(f"{shared}/") if shared else name for name in names]
