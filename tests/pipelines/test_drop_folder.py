"""Layers dropped from folders: the same of all graphs, a configuration that fits, the tokens of zeroed layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.folder import read_folder
from tests.graphs.folders import (
    Family,
    answered,
    generated,
    translated,
    with_zeros,
    write_decoder,
    write_handing,
    write_pair,
)
from tests.graphs.net import run
from tests.graphs.skip_norms import stream, without

TEXT = [5, 17, 3, 31, 22]


def zeroed(source: Path, target: Path, *beginnings: str) -> Path:
    """The folder with zeros for what some layers add to the stream."""

    def is_gone(name: str) -> bool:
        return name.rpartition("/")[2].startswith(beginnings) and name.endswith((".o", ".down"))

    return with_zeros(source, target, is_gone)


def test_a_layer_of_a_decoder(tmp_path: Path) -> None:
    source = write_decoder(
        tmp_path / "whole", Family(layers=3), layer_types=["full", "sliding", "full"], sizes=[1, 2, 3]
    )
    done = onnxprune.drop_folder(source, tmp_path / "small", blocks=("layers.1",))
    assert done.verdict is not None and done.verdict.ok
    before, after = (json.loads((path / "config.json").read_text()) for path in (source, tmp_path / "small"))
    assert after == before | {"num_hidden_layers": 2, "layer_types": ["full", "full"]}
    ids, cache = generated(tmp_path / "small", TEXT, 20)
    wanted, whole = generated(zeroed(source, tmp_path / "zeroed", "layers.1."), TEXT, 20)
    assert ids == wanted != generated(source, TEXT, 20)[0] and cache == whole * 2 // 3


def test_a_layer_of_a_decoder_in_two_files(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole", Family(layers=3), encoder_layers=3, decoder_layers=3)
    done = onnxprune.drop_folder(source, tmp_path / "small", count=1, keep=("encoder_model/*",), criterion="random")
    names = [one.block.name for one in done.dropped]
    (layer,) = {weight.split(".")[-2] for one in done.dropped for weight in one.block.matrices}
    assert len(names) == 2 and {name.partition("/")[0] for name in names} == {
        "decoder_model",
        "decoder_with_past_model",
    }
    after = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (after["decoder_layers"], after["encoder_layers"], after["num_hidden_layers"]) == (2, 3, 3)
    ids, cache = translated(tmp_path / "small", TEXT, 20)
    reference = zeroed(source, tmp_path / "zeroed", f"layers.{layer}.", f"cross.{layer}.")
    wanted, whole = translated(reference, TEXT, 20)
    assert ids == wanted != translated(source, TEXT, 20)[0] and cache == whole * 2 // 3


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_whose_cache_the_encoder_hands_out(tmp_path: Path, layer: int) -> None:
    """The encoder hands out the caches of the other layers, under their new numbers, and makes no more."""
    source = write_handing(tmp_path / "whole", Family(layers=3))
    blocks = onnxprune.drop_folder(source, tmp_path / "any", count=1, keep=("encoder/*",)).blocks
    layers = [one.block for one in blocks if one.block.name.startswith("decoder/") and one.block.kind == "block"]
    done = onnxprune.drop_folder(source, tmp_path / "small", blocks=(layers[layer].name,))
    assert done.verdict is not None and done.verdict.ok
    before, after = (json.loads((p / "genai_config.json").read_text())["model"] for p in (source, tmp_path / "small"))
    assert after == before | {"decoder": before["decoder"] | {"num_hidden_layers": 2}}
    stored = {tensor.name for tensor in onnx.load(tmp_path / "small" / "encoder.onnx").graph.initializer}
    assert {name for name in stored if name.startswith("cross")} == {
        f"cross.{other}.{kind}" for other in {0, 1, 2} - {layer} for kind in ("key", "value")
    }
    ids, cache = answered(tmp_path / "small", TEXT, 20)
    wanted, whole = answered(zeroed(source, tmp_path / "zeroed", f"layers.{layer}.", f"cross.{layer}."), TEXT, 20)
    assert ids == wanted != answered(source, TEXT, 20)[0] and cache == whole * 2 // 3


def test_a_layer_of_an_encoder_that_hands_out_caches(tmp_path: Path) -> None:
    """No decoder: its layers are counted by themselves, and all caches stay."""
    source = write_handing(tmp_path / "whole")
    done = onnxprune.drop_folder(source, tmp_path / "small", count=1, keep=("decoder/*",))
    assert done.verdict is not None and done.verdict.ok and not done.io_renames
    after = json.loads((tmp_path / "small" / "genai_config.json").read_text())["model"]
    assert [after[name]["num_hidden_layers"] for name in ("encoder", "decoder")] == [1, 2]
    (gone,) = {weight.split(".")[-2] for one in done.dropped for weight in one.block.matrices}
    ids, cache = answered(tmp_path / "small", TEXT, 20)
    wanted, whole = answered(zeroed(source, tmp_path / "zeroed", f"encoder.{gone}."), TEXT, 20)
    assert ids == wanted and cache == whole


def test_weights_of_a_layer_in_two_files_count_once(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole", decoder_layers=2)
    done = onnxprune.drop_folder(source, tmp_path / "small", blocks=("decoder_model/add_141",))
    layer = [value for name, value in _weights(source).items() if name.startswith(("layers.1.", "cross.1."))]
    assert done.before.params - done.after.params == sum(layer)
    assert sum(one.params for one in done.dropped) == sum(layer)


def _weights(source: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in source.glob("*.onnx"):
        for tensor in onnx.load(path).graph.initializer:
            found[tensor.name] = int(np.prod(tensor.dims))
    return found


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (("encoder_model*0*",), "counts the layers of the encoder and of the decoder"),
        (("layers.*.nothing",), "no block is called"),
        (("*attend*", "*"), "no block is called"),
    ],
)
def test_what_the_configuration_cannot_say_is_refused(tmp_path: Path, blocks: tuple[str, ...], said: str) -> None:
    source = write_pair(tmp_path / "whole")
    with pytest.raises((GoalMissed, UsageError), match=said):
        onnxprune.drop_folder(source, tmp_path / "small", blocks=blocks)
    assert not (tmp_path / "small").exists()


def test_a_part_of_a_layer_may_go_unless_it_has_a_cache(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    parts = [
        b.block for b in onnxprune.drop_folder(source, tmp_path / "any", count=1).blocks if b.block.kind == "branch"
    ]
    attention, feed_forward = parts[:2]
    assert attention.changes_io and not feed_forward.changes_io
    with pytest.raises(GoalMissed, match="counts a cache for every layer"):
        onnxprune.drop_folder(source, tmp_path / "small", blocks=(attention.name,))
    onnxprune.drop_folder(source, tmp_path / "small", blocks=(feed_forward.name,))
    assert (tmp_path / "small" / "config.json").read_text() == (source / "config.json").read_text()
    assert len(generated(tmp_path / "small", TEXT, 20)[0]) > len(TEXT)


def test_layers_whose_sums_and_norms_are_one_operator(tmp_path: Path) -> None:
    """As onnxruntime-genai writes them."""
    (tmp_path / "whole").mkdir()
    onnx.save(stream(), tmp_path / "whole" / "model.onnx")
    (tmp_path / "whole" / "config.json").write_text(json.dumps({"encoder_layers": 3}))
    done = onnxprune.drop_folder(tmp_path / "whole", tmp_path / "small", blocks=("layers.1*",))
    assert json.loads((tmp_path / "small" / "config.json").read_text()) == {"encoder_layers": 2}
    assert done.plan.is_made_for(read_folder(tmp_path / "whole").joined.model)
    smaller = onnx.load(tmp_path / "small" / "model.onnx")
    np.testing.assert_allclose(run(smaller)["y"], run(without(stream(), 1))["y"], atol=1e-5)


def test_layers_that_are_not_counted_stay(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole", num_hidden_layers=7)
    with pytest.raises(GoalMissed, match="2 blocks of the decoder were found, but num_hidden_layers is 7"):
        onnxprune.drop_folder(source, tmp_path / "small", count=1)
