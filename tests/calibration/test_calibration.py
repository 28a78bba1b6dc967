"""Calibration data from every kind of source, and what is said about data that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import calibration
from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.model import Model, load

MODELS = Path(__file__).parents[2] / "models"


def model(batch: int | str = "n", inputs: tuple[str, ...] = ("x",), elem_type: int = TensorProto.FLOAT, rest=(3,)):
    values = [helper.make_tensor_value_info(name, elem_type, [batch, *rest]) for name in inputs]
    result = helper.make_tensor_value_info("y", elem_type, [batch, *rest])
    graph = helper.make_graph([helper.make_node("Sum", list(inputs), ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


DATA = np.arange(60, dtype=np.float32).reshape(20, 3)


def together(runs: list[dict[str, np.ndarray]], name: str = "x") -> np.ndarray:
    return np.concatenate([run[name] for run in runs])


def test_npz_in_batches(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA, label=np.arange(20))
    runs = calibration.read(tmp_path / "c.npz", model(), batch=8)
    assert [len(run["x"]) for run in runs] == [8, 8, 4] and list(runs[0]) == ["x"]
    assert np.array_equal(together(runs), DATA)


def test_fewer_samples_are_drawn_from_the_whole_array(tmp_path: Path):
    """Many files are sorted by class: the first ones would show one class only."""
    np.savez(tmp_path / "c.npz", x=DATA)
    drawn, again = (together(calibration.read(str(tmp_path / "c.npz"), model(), samples=9, batch=4)) for _ in range(2))
    rows = [DATA.tolist().index(row) for row in drawn.tolist()]
    assert len(set(rows)) == 9 and max(rows) > 9
    assert np.array_equal(drawn, again)


def test_fixed_batch_takes_whole_batches_only(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA)
    assert [len(run["x"]) for run in calibration.read(tmp_path / "c.npz", model(6))] == [6, 6, 6]


def test_two_inputs_stay_together(tmp_path: Path):
    np.savez(tmp_path / "c.npz", a=DATA, b=-DATA)
    runs = calibration.read(tmp_path / "c.npz", model(inputs=("a", "b")), batch=7)
    assert all(np.array_equal(run["a"], -run["b"]) for run in runs)


def apart(*firsts: int | str) -> Model:
    """A model whose inputs have other names for axis 0, or other sizes."""
    names = [f"x{i}" for i in range(len(firsts))]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3])
        for name, first in zip(names, firsts, strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Sum", names, ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("firsts", [("unk__330", "unk__331"), ("", ""), ("n", "n", "m")])
def test_batch_axes_of_other_names_are_one_sample_each(tmp_path: Path, firsts: tuple[str, ...]):
    data = {f"x{i}": DATA * (i + 1) for i in range(len(firsts))}
    np.savez(tmp_path / "c.npz", **data)
    runs = calibration.read(tmp_path / "c.npz", apart(*firsts), samples=12, batch=4)
    assert [len(run["x0"]) for run in runs] == [4, 4, 4]
    assert all(np.array_equal(run["x0"] * 2, run["x1"]) for run in runs)
    one = calibration.read([{name: value[:1] for name, value in data.items()}] * 3, apart(*firsts))
    assert [len(run["x1"]) for run in one] == [1, 1, 1]


def test_a_number_for_one_of_their_names_fixes_the_batch(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x0=DATA, x1=DATA)
    runs = calibration.read(tmp_path / "c.npz", apart("a", "b"), sizes={"b": 8})
    assert [len(run["x0"]) for run in runs] == [8, 8]


def test_axes_of_other_lengths_are_no_batch():
    """Points and boxes: every feed is a sample."""
    feeds = [{"x0": DATA[: 3 + i], "x1": DATA[:5]} for i in range(4)]
    runs = calibration.read(feeds, apart("points", "boxes"))
    assert sorted((len(run["x0"]), len(run["x1"])) for run in runs) == [(3, 5), (4, 5), (5, 5), (6, 5)]
    assert [len(run["x0"]) for run in calibration.read(feeds[:1], apart(3, "boxes"))] == [3]


def test_folder_of_npy(tmp_path: Path):
    for i, row in enumerate(DATA):
        np.save(tmp_path / f"{i:03}.npy", row)
    assert np.array_equal(together(calibration.read(tmp_path, model())), DATA)


def test_folder_of_test_data_sets(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"test_data_set_{i}").mkdir()
        tensor = numpy_helper.from_array(DATA[i : i + 1], "x")
        onnx.save_tensor(tensor, str(tmp_path / f"test_data_set_{i}" / "input_0.pb"))
    assert np.array_equal(together(calibration.read(tmp_path, model())), DATA[:3])


def test_feeds_and_readers():
    feeds = [{"x": DATA[:5]}, {"x": DATA[5:]}]

    class Reader:
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self):
            return next(self.left, None)

    for source in (feeds, iter(feeds), Reader()):
        assert np.array_equal(together(calibration.read(source, model())), DATA)


def test_samples_of_several_files_share_runs(tmp_path: Path):
    for i, row in enumerate(DATA):
        np.save(tmp_path / f"{i:03}.npy", row)
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(), batch=8)] == [8, 8, 4]
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(6))] == [6, 6, 6]
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(), sizes={"n": 9})] == [9, 9]


def test_feeds_from_python_stay_apart_unless_the_batch_is_fixed():
    feeds = [{"x": DATA[:5]}, {"x": DATA[5:8]}, {"x": DATA[8:]}]
    assert [len(run["x"]) for run in calibration.read(feeds, model())] == [5, 3, 12]
    runs = calibration.read(feeds, model(6))
    assert [len(run["x"]) for run in runs] == [6, 6, 6] and np.array_equal(together(runs), DATA[:18])
    assert [len(run["x"]) for run in calibration.read(feeds, model(), sizes={"n": 10})] == [10, 10]


def test_there_are_two_runs_if_there_are_two_samples():
    assert [len(run["x"]) for run in calibration.read({"x": DATA}, model())] == [10, 10]
    assert [len(run["x"]) for run in calibration.read(DATA[:3], model())] == [2, 1]
    assert [len(run["x"]) for run in calibration.read(DATA[:1], model())] == [1]


def test_samples_of_different_length():
    free = model(rest=("t", 3))
    feeds = [{"x": np.full((1, 1 + i % 2, 3), i, np.float32)} for i in range(6)]
    for batch, lengths in (("n", [1] * 6), (2, [2, 2])):
        runs = calibration.read(feeds, model(batch, rest=("t", 3)))
        assert [len(run["x"]) for run in runs] == lengths
        assert all(len({run["x"].shape[1], *(1 + run["x"][:, 0, 0].astype(int) % 2)}) == 1 for run in runs)
    assert len(calibration.read(feeds, free, samples=4)) == 4


def test_inputs_without_a_common_batch_are_fed_as_they_are():
    values = [helper.make_tensor_value_info(*v) for v in (("x", 1, ["n", 3]), ("h", 1, [2, "n", 3]), ("rate", 7, []))]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "n", 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "h"], ["y"])], "g", values, [result])
    state = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    feed = {"x": DATA[:4], "h": np.zeros((2, 4, 3), np.float32), "rate": np.int64(16000)}
    runs = calibration.read([feed] * 3, state, samples=2)
    assert len(runs) == 2 and all(np.array_equal(runs[1][name], value) for name, value in feed.items())
    with pytest.raises(UsageError, match=r"'h' has shape \[1, 4, 3\]"):
        calibration.read([feed | {"h": np.zeros((1, 4, 3), np.float32)}], state)


def test_npz_with_one_array_per_sample(tmp_path: Path):
    np.savez(tmp_path / "rows.npz", *DATA)
    np.savez(tmp_path / "named.npz", cat=DATA[0], dog=DATA[1:4])
    np.savez(tmp_path / "one.npz", DATA)
    np.save(tmp_path / "one.npy", DATA)
    for name, rows in (("rows.npz", DATA), ("named.npz", DATA[:4]), ("one.npz", DATA), ("one.npy", DATA)):
        assert np.array_equal(together(calibration.read(tmp_path / name, model())), rows)


def test_folder_of_npz(tmp_path: Path):
    for i in range(4):
        np.savez(tmp_path / f"{i}.npz", a=DATA[i : i + 1], b=-DATA[i : i + 1])
    runs = calibration.read(tmp_path, model(inputs=("a", "b")))
    assert np.array_equal(together(runs, "a"), DATA[:4]) and np.array_equal(together(runs, "b"), -DATA[:4])


def test_test_data_without_the_names_of_the_model_is_in_its_order(tmp_path: Path):
    (tmp_path / "test_data_set_0").mkdir()
    for i, sign in enumerate((1, -1)):
        tensor = numpy_helper.from_array(sign * DATA[:2], f"other_{i}")
        onnx.save_tensor(tensor, str(tmp_path / "test_data_set_0" / f"input_{i}.pb"))
    runs = calibration.read(tmp_path, model(inputs=("a", "b")))
    assert np.array_equal(together(runs, "a"), DATA[:2]) and np.array_equal(together(runs, "b"), -DATA[:2])
    (tmp_path / "test_data_set_0" / "input_1.pb").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"input_1\.pb holds no tensor"):
        calibration.read(tmp_path, model(inputs=("a", "b")))


# --- random -----------------------------------------------------------------------------------------------


def test_random_inputs_are_reproducible_and_fit():
    for name in ("digits", "bert"):
        net = load(str(MODELS / f"{name}.onnx"))
        first, second = (calibration.read("random", net, samples=40) for _ in range(2))
        assert sum(len(next(iter(run.values()))) for run in first) == 40
        assert all(np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
    assert first[0]["input_ids"].min() >= 0 and len(np.unique(first[0]["input_ids"])) > 10
    long = calibration.read("random", net, sizes={"sequence": 12})
    assert long[0]["input_ids"].shape == (32, 12)


# --- messages ---------------------------------------------------------------------------------------------


def test_types_are_converted_without_loss(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA.astype(np.uint8))
    assert calibration.read(tmp_path / "c.npz", model())[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": DATA}, "input 'x' is missing"),
        ({"x": DATA[:, :2]}, r"has shape \[20, 2\], the model wants \['n', 3\]"),
        ({"x": DATA.reshape(-1)}, r"has shape \[60\]"),
        ({"x": DATA.astype(str)}, "the model wants float32"),
        ({"x": DATA[:0]}, "no calibration sample: it is empty"),
        ({"x": np.where(DATA == 7, np.nan, DATA)}, "input 'x' holds NaN"),
        ({"cat": DATA[0], "dog": DATA[0, :2]}, r"c\.npz\['dog'\]: input 'x' has shape \[1, 2\]"),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        calibration.read(tmp_path / "c.npz", model())


def test_sources_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        calibration.read(tmp_path / "none.npz", model())
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "bad.npz", model())
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "pickled.npz", model())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no calibration data"):
        calibration.read(tmp_path / "empty", model())
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(UsageError, match=r"\.md says nothing"):
        calibration.read(tmp_path / "notes.md", model())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:60])
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "cut.npz", model())


def test_messages_say_what_to_do():
    with pytest.raises(UsageError) as error:
        calibration.read([{"X": DATA}], model())
    assert error.value.message == "feed 0 of the calibration data: input 'x' is missing"
    assert error.value.hint == "the model's inputs are 'x' (float32 [n, 3]); the data has 'X'"
    with pytest.raises(UsageError) as error:
        calibration.read([{"input": DATA}], model(inputs=("input.1",)))
    assert error.value.hint.endswith("the data has 'input'; rename 'input' to 'input.1'")
    with pytest.raises(UsageError, match="inputs differ in their number of samples: a has 20, b has 19"):
        calibration.read({"a": DATA, "b": DATA[1:]}, model(inputs=("a", "b")))
    with pytest.raises(UsageError, match="holds 0 to 300, too much for uint8"):
        calibration.read({"x": np.array([[0, 1, 300]])}, model(elem_type=TensorProto.UINT8))
    with pytest.raises(UsageError, match="is float32, the model wants uint8"):
        calibration.read({"x": DATA}, model(elem_type=TensorProto.UINT8))
    with pytest.raises(UsageError, match="4 found, and the model runs on 6 at a time"):
        calibration.read(DATA, model(6), samples=4)
    with pytest.raises(UsageError, match="a int is no source of feeds"):
        calibration.read(3, model())
    with pytest.raises(UsageError, match="an array fits models with one input, this one has 2: a, b"):
        calibration.read(DATA, model(inputs=("a", "b")))


def test_options_for_other_sources_are_refused(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA)
    for option in ({"preprocess": "imagenet"}, {"tokenizer": "tokenizer.json"}):
        for data in ("random", "my_inputs:feeds", [{"x": DATA}]):
            with pytest.raises(UsageError, match=f"--{next(iter(option))} is for "):
                calibration.read(calibration.Source(data, **option), model())
    with pytest.raises(UsageError, match="--preprocess is for a folder of images"):
        calibration.read(calibration.Source(tmp_path / "c.npz", preprocess="raw"), model())


def test_options_without_data_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["prune", str(MODELS / "digits.onnx"), "--dry-run", "--preprocess", "unit"]) == 2
    assert "--preprocess has no effect: it says how to read --data, which is missing" in capsys.readouterr().err
