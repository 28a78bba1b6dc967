"""Random graphs out of what real networks consist of: strategies for hypothesis."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import strategies as st

from tests.graphs.grower import Draw
from tests.graphs.random_images import Images
from tests.graphs.random_sequences import Sequences


class Mixed(Images, Sequences):
    """Convolutions, then tokens."""

    def start(self) -> None:  # type: ignore[override]
        Images.start(self)

    def to_tokens(self) -> None:
        x, c = self.now
        self.LENGTH, self.dim, self.table = self.SIDE * self.SIDE // 4, c, ""
        y = self.net.add("Conv", x, self.weight(c, c, 2, 2), strides=[2, 2])
        self.x = self.net.add("Transpose", self.reshape(y, 0, c, self.LENGTH), perm=[0, 2, 1])


def steps_of(kind: type) -> list[str]:
    return sorted(n for n in dir(kind) if n.startswith("step_"))


@st.composite
def images(draw: Draw) -> onnx.ModelProto:
    grower = Images(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Images)), min_size=3, max_size=11)):
        getattr(grower, step)()
    return grower.finish()


@st.composite
def sequences(draw: Draw) -> onnx.ModelProto:
    grower = Sequences(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Sequences)), min_size=1, max_size=4)):
        getattr(grower, step)()
    return grower.finish()


@st.composite
def mixed(draw: Draw) -> onnx.ModelProto:
    grower = Mixed(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Images)), min_size=1, max_size=4)):
        getattr(grower, step)()
    grower.to_tokens()
    for step in draw(st.lists(st.sampled_from(steps_of(Sequences)), min_size=1, max_size=3)):
        if step != "step_conv":
            getattr(grower, step)()
    return Sequences.finish(grower)


@st.composite
def options(draw: Draw) -> dict[str, Any]:
    return {
        "ratio": draw(st.sampled_from([0.2, 0.5, 0.5, 0.75, 0.9])),
        "allocation": draw(st.sampled_from(["uniform", "global", "greedy", "sensitivity"])),
        "criterion": draw(st.sampled_from(["l1", "l2", "random", "fpgm", "lamp", "bn-scale", "ensemble"])),
        "seed": draw(st.integers(0, 3)),
        "heads": draw(st.sampled_from([True, True, False])),
        "head_dims": draw(st.booleans()),
        "exact_only": draw(st.sampled_from([False, False, True])),
        "round_to": draw(st.sampled_from([1, 1, 2, 4])),
    }


FAMILIES = {"convolutional": images, "transformer": sequences, "mixed": mixed}
