"""Sources of calibration samples, as readers see them: a path or object, how many samples, which preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.typing import Feeds

# Where a feed comes from, for messages, and the feed: one sample or several, on axis 0.
Samples = Iterator[tuple[str, Feeds]]


@dataclass(frozen=True)
class Source:
    """Calibration data with how to read it.

    Attributes:
        data: see `calibration.read`.
        preprocess: for images: a `Preprocess`, a mapping of its fields, the name of a preset or a TOML file.
        tokenizer: for text: the path of a tokenizer.json.
    """

    data: Any
    preprocess: Any = None
    tokenizer: Any = None


@dataclass(frozen=True)
class Request:
    """What a source is to give.

    Attributes:
        model: what the inputs are for.
        wanted: the model's inputs.
        samples: how many samples are of use.
        sizes: numbers for symbolic dims, where the source can choose.
        source: where the data is, and how to read it.
    """

    model: Model
    wanted: Mapping[str, InputSpec]
    samples: int
    sizes: Mapping[str, int]
    source: Source

    def only(self, what: str) -> InputSpec:
        """The model's one input, for a source that cannot tell inputs apart.

        Raises:
            UsageError: there are several.
        """
        if len(self.wanted) != 1:
            raise UsageError(
                f"{what} fits models with one input, this one has {len(self.wanted)}: {', '.join(self.wanted)}",
                hint="give an .npz with one array per input, or module:function",
            )
        return next(iter(self.wanted.values()))
