"""Numbers of layers in configuration files."""

from __future__ import annotations

import pytest

from onnxprune.errors import GoalMissed
from onnxprune.folder.layers import DECODER, ENCODER, Stack, check_counted, without_layers

SHORTER, WHOLE = Stack(DECODER, 4, (1, 2)), Stack(ENCODER, 4, ())


@pytest.mark.parametrize(
    ("content", "after"),
    [
        (
            {"n_layer": 4, "layer_types": list("abcd"), "suppress_tokens": [1, 2, 3, 4]},
            {"n_layer": 2, "layer_types": ["a", "d"]},
        ),
        (
            {"model": {"decoder": {"num_hidden_layers": 4}, "encoder": {"num_hidden_layers": 4}}},
            {"model": {"decoder": {"num_hidden_layers": 2}, "encoder": {"num_hidden_layers": 4}}},
        ),
        ({"num_layers": 4, "num_decoder_layers": 4}, {"num_decoder_layers": 2}),
        ({"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4}, {"decoder_layers": 2}),
        ({"num_hidden_layers": 5}, {}),
        ({"num_hidden_layers": True, "n_layer": "4"}, {}),
    ],
)
def test_numbers_and_lists(content: dict[str, object], after: dict[str, object]) -> None:
    before = {"config.json": content}
    made = without_layers(before, [SHORTER, SHORTER, WHOLE])
    assert made == {"config.json": content | after}
    assert before == {"config.json": content} and (made is not before)


def test_what_cannot_be_said() -> None:
    with pytest.raises(GoalMissed, match="the graphs of the decoder would have different layers"):
        check_counted({}, [SHORTER, Stack(DECODER, 4, (1,))])
    with pytest.raises(GoalMissed, match="n_layer counts the layers of the encoder and of the decoder"):
        check_counted({"config.json": {"n_layer": 4}}, [SHORTER, WHOLE])
    with pytest.raises(GoalMissed, match="4 blocks of the decoder were found, but n_layer is 3"):
        check_counted({"config.json": {"n_layer": 3}}, [SHORTER])
    with pytest.raises(GoalMissed, match="no file counts layers"):
        check_counted({"config.json": {}}, [SHORTER])
    check_counted({"config.json": {"n_layer": 3}}, [WHOLE])
    check_counted({}, [SHORTER])
