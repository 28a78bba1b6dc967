"""`onnxprune sparsify`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxprune.cli import main
from tests.graphs.net import array_of

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "digits.onnx", "model.onnx")
    shutil.copy(MODELS / "digits_calibration.npz", "data.npz")
    return tmp_path


def sparsify(*words: str) -> int:
    return main(["sparsify", "model.onnx", "--no-time", *words])


def test_it_writes_zeros_and_counts_them_in_the_file(workplace, capsys):
    assert sparsify("-o", "s.onnx", "-s", "70%", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    stored = {w["name"]: array_of(__import__("onnx").load("s.onnx"), w["name"]) for w in told["weights"]}
    for weight in told["weights"]:
        value = stored[weight["name"]]
        assert weight["zeros"] == int((value == 0).sum()) and weight["shape"] == list(value.shape)
    assert told["proof"]["ok"] and told["after"]["bytes"] == Path("s.onnx").stat().st_size
    assert told["before"]["nonzeros"] - told["after"]["nonzeros"] == sum(w["zeros"] for w in told["weights"])


def test_a_ratio_without_a_glob_is_that_of_all_weights(workplace):
    assert sparsify("-o", "s.onnx", "-s", "70%") == sparsify("-o", "r.onnx", "--ratio", "0.7") == 0
    assert Path("r.onnx").read_bytes() == Path("s.onnx").read_bytes()
    assert sparsify("-o", "g.onnx", "--ratio", "70%", "--ratio-for", "*=0.2") == 0
    assert Path("g.onnx").read_bytes() != Path("s.onnx").read_bytes()


def test_time_is_measured_and_said(workplace, capsys):
    assert main(["sparsify", "model.onnx", "-o", "s.onnx", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "\nspeed " in out and "ONNX Runtime CPU, 1 thread\n" in out


def test_two_of_four_says_what_tensorrt_may_do(workplace, capsys):
    assert sparsify("-o", "s.onnx", "--pattern", "2:4") == 0
    out = capsys.readouterr().out
    assert "0 of 6 layers are of a kind that has 2:4 kernels" in out and "not /conv/Conv" in out


def test_a_plan_is_applied(workplace):
    assert sparsify("-o", "s.onnx", "--plan-out", "p.json", "--pattern", "1:4") == 0
    assert main(["apply", "model.onnx", "p.json", "-o", "again.onnx"]) == 0
    assert Path("again.onnx").read_bytes() == Path("s.onnx").read_bytes()
    assert main(["apply", "model.onnx", "p.json", "-o", "fitted.onnx", "--data", "data.npz"]) == 0
    before, after = (array_of(__import__("onnx").load(name), "fc.weight") for name in ("s.onnx", "fitted.onnx"))
    assert ((before == 0) == (after == 0)).all() and not np.array_equal(before, after)


def test_a_dry_run_writes_nothing(workplace):
    assert sparsify("--dry-run", "--plan-out", "p.json") == 0
    assert sorted(p.name for p in workplace.iterdir()) == ["data.npz", "model.onnx"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no output"),
        (["-o", "model.onnx"], 2, "is the input"),
        (["-o", "-", "--json"], 2, "cannot both go to standard output"),
        (["-o", "s.onnx", "--plan-out", "s.onnx"], 2, "two outputs"),
        (["-o", "s.onnx", "-s", "150%"], 2, "--sparsity: 1.5 is not"),
        (["-o", "s.onnx", "-s", "0.5", "--ratio", "0.7"], 2, "say twice how much"),
        (["-o", "s.onnx", "--ratio", "=0.7"], 2, "'=0.7' is not of the form GLOB=RATIO"),
        (["-o", "s.onnx", "--pattern", "4:2"], 2, "is no pattern"),
        (["-o", "s.onnx", "--method", "magic"], 2, "nothing is called 'magic'"),
        (["-o", "s.onnx", "--method", "wanda"], 2, "needs inputs"),
        (["-o", "s.onnx", "--recover"], 2, "--recover"),
        (["-o", "s.onnx", "--keep", "zzz"], 2, "no weight or node matches"),
        (["-o", "s.onnx", "--threads", "1"], 2, "--threads has no effect"),
        (["-o", "s.onnx", "--samples", "5"], 2, "--samples has no effect"),
    ],
)
def test_bad_requests_end_with_one_error_and_write_nothing(workplace, capsys, words, code, says):
    assert sparsify(*words) == code
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert sorted(p.name for p in workplace.iterdir()) == ["data.npz", "model.onnx"]


@pytest.mark.parametrize("option", ["--permute", "--no-permute"])
@pytest.mark.parametrize("pattern", ["unstructured", "block 4x4"])
def test_an_order_without_n_of_m_has_no_effect(workplace, capsys, option, pattern):
    assert sparsify("-o", "s.onnx", "--pattern", pattern, option) == 2
    assert f"{option} has no effect" in capsys.readouterr().err and not Path("s.onnx").exists()
    assert sparsify("--dry-run", "--pattern", "2:4", option) == 0


def test_apply_tells_of_channels_that_change_places(workplace, capsys):
    assert sparsify("-o", "s.onnx", "--pattern", "2:4", "--plan-out", "plan.json") == 0
    capsys.readouterr()
    assert main(["apply", "model.onnx", "plan.json", "-o", "again.onnx"]) == 0
    assert "order    3 groups of channels change places, proven to change no output" in capsys.readouterr().out


def test_token_ids_beyond_the_table_are_told(workplace, capsys):
    Path("tokens.jsonl").write_text('{"input_ids": [1, 2]}\n{"input_ids": [5000]}\n')
    words = ["prune", str(MODELS / "bert.onnx"), "-o", "s.onnx", "--data", "tokens.jsonl"]
    assert main(words) == 4
    assert "hint: a token id or a position in the inputs is beyond the table" in capsys.readouterr().err


def test_outputs_that_were_trained_are_not_called_re_fitted_alone(workplace, capsys):
    assert sparsify("--dry-run", "-s", "90%", "--data", "data.npz", "--train", "2", "--rate", "1e-3") == 0
    assert "re-fitted and trained\n" in capsys.readouterr().out


def test_several_processes_train_to_the_same_weights(workplace):
    taught = ("-s", "90%", "--data", "data.npz", "--samples", "64", "--train", "2", "--rate", "1e-3", "--batch", "16")
    for jobs in ("1", "2"):
        assert sparsify("-o", f"{jobs}.onnx", *taught, "--parts", "2", "--threads", "1", "--jobs", jobs) == 0
    assert Path("1.onnx").read_bytes() == Path("2.onnx").read_bytes()


def test_processes_without_training_are_refused(workplace, capsys):
    assert sparsify("--dry-run", "-s", "90%", "--jobs", "2") == 2
    assert "nothing is searched or trained" in capsys.readouterr().err
