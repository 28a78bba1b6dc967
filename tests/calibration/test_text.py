"""Text as calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune import calibration
from onnxprune.errors import UsageError
from onnxprune.model import load

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "cat", "sat", "dog", "ran"]


def model(
    batch: int | str = "batch", length: int | str = "sequence", names=("input_ids",), elem_type=TensorProto.INT64
):
    values = [helper.make_tensor_value_info(name, elem_type, [batch, length]) for name in names]
    result = helper.make_tensor_value_info("y", elem_type, [batch, length])
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text beside its tokenizer, which knows a few words and puts every line between two special tokens."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "text.txt"
    path.write_text("a cat sat\n\n  a dog\na bird\n")
    return path


ALL = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def test_lines_become_samples(text: Path):
    runs = calibration.read(text, model(names=ALL), batch=8)
    ids, mask, types, positions = (np.concatenate([run[name] for run in runs]) for name in ALL)
    assert ids.tolist() == [[1, 4, 5, 6, 2], [1, 4, 7, 2, 3], [1, 4, 0, 2, 3]] and ids.dtype == np.int64
    assert mask.tolist() == [[1] * 5, [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert not types.any() and positions[0].tolist() == [0, 1, 2, 3, 4]


def test_length_is_that_of_the_model_or_as_given(text: Path):
    def ids(net, **options):
        return np.concatenate([run["input_ids"] for run in calibration.read(text, net, **options)]).tolist()

    assert ids(model(length=4)) == [[1, 4, 5, 2], [1, 4, 7, 2], [1, 4, 0, 2]]
    assert ids(model(), sizes={"sequence": 4}) == ids(model(length=4))
    assert ids(model(length=7))[1] == [1, 4, 7, 2, 3, 3, 3]
    assert ids(model(), samples=2) == [[1, 4, 5, 6, 2], [1, 4, 7, 2, 3]]
    assert ids(model(batch=2, length=4)) == [[1, 4, 5, 2], [1, 4, 7, 2]]
    text.write_text("a " * 1000)
    assert len(ids(model())[0]) == 128


def test_other_names_and_types(text: Path):
    names = ("tokens:0", "input_mask:0", "segment_ids:0")
    runs = calibration.read(text, model(names=names, elem_type=TensorProto.INT32))
    assert runs[0]["tokens:0"].dtype == np.int32 and runs[1]["input_mask:0"].tolist() == [[1, 1, 1, 1, 0]]


def test_tokenizer_given(text: Path):
    other = text.parent / "elsewhere.json"
    (text.parent / "tokenizer.json").rename(other)
    runs = calibration.read(calibration.Source(text, tokenizer=other), model())
    assert runs[0]["input_ids"][0].tolist() == [1, 4, 5, 6, 2]
    text.rename(text.with_suffix(".md"))  # with a tokenizer any file is text
    assert len(calibration.read(calibration.Source(text.with_suffix(".md"), tokenizer=str(other)), model())) == 3
    with pytest.raises(UsageError, match=r"no such file: .*absent\.json"):
        calibration.read(calibration.Source(other, tokenizer=text.parent / "absent.json"), model())


def test_what_is_wrong(text: Path):
    with pytest.raises(UsageError, match=r"text does not fit the model's inputs 'input_ids'.*'decoder_input_ids'"):
        calibration.read(text, model(names=("input_ids", "decoder_input_ids")))
    with pytest.raises(UsageError, match=r"text does not fit the model's inputs 'pixels' \(float32"):
        calibration.read(text, model(names=("pixels",), elem_type=TensorProto.FLOAT))
    text.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a text in UTF-8"):
        calibration.read(text, model())
    text.write_text("\n \n")
    with pytest.raises(UsageError, match="no calibration sample: it is empty"):
        calibration.read(text, model())
    (text.parent / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"tokenizer\.json is no tokenizer"):
        calibration.read(text, model())
    (text.parent / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"text needs a tokenizer, and .*tokenizer\.json does not exist"):
        calibration.read(text, model())
