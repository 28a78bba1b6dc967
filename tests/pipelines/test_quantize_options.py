"""What may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import UsageError
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "tiny"}, "no form"),
        ({"weights": "int16"}, "no type of weights"),
        ({"activations": "float8"}, "no type of activations"),
        ({"bits": 3}, "no number of bits"),
        ({"block_size": 8}, "no size of a block"),
        ({"block_size": 48}, "no size of a block"),
        ({"constraint": QualityConstraint("value", 0.1)}, "needs a measure"),
        ({"evaluation": Evaluation("mine:measure")}, "nothing that it must keep"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        QuantizeOptions(**options)


def test_the_form_depends_on_the_data() -> None:
    assert QuantizeOptions().settled(data=True).form == "qdq"
    assert QuantizeOptions().settled(data=False).form == "dynamic"
    assert QuantizeOptions(form="blocks", bits=8).settled(data=False).blocks.bits == 8


@pytest.mark.parametrize("form", ["qdq", "operators"])
def test_ranges_need_inputs(form: str) -> None:
    with pytest.raises(UsageError, match="ranges of activations"):
        QuantizeOptions(form=form).settled(data=False)


def test_quality_needs_inputs() -> None:
    options = QuantizeOptions(constraint=QualityConstraint("sqnr", 20))
    assert options.settled(data=True).constraint is not None
    with pytest.raises(UsageError, match="measured on inputs"):
        options.settled(data=False)


@pytest.mark.parametrize("form", ["operators", "dynamic", "blocks"])
def test_weights_of_four_bits_stand_between_quantisers(form: str) -> None:
    assert QuantizeOptions(weights="int4").settled(data=True).form == "qdq"
    with pytest.raises(UsageError, match="no weights of type int4"):
        QuantizeOptions(form=form, weights="int4").settled(data=True)
