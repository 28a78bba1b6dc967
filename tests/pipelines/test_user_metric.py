"""The user's own measure: a function, or a command that prints a number."""

import sys
from pathlib import Path

import onnx
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.model import load
from onnxprune.pipelines import Evaluation

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def size(path):
    return len(onnx.load(path).graph.initializer)


def test_functions_and_commands_get_the_path_of_the_model(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import onnx\ndef size(path):\n    return len(onnx.load(path).graph.initializer)\n"
    )
    monkeypatch.chdir(tmp_path)
    model = load(str(DIGITS))
    command = f"{sys.executable} -c 'import sys, mine; print(7); print(mine.size(sys.argv[1])); print()' {{model}}"
    wanted = size(DIGITS)
    assert [Evaluation(spec).of(model) for spec in ("mine:size", size, command)] == [wanted] * 3


def test_a_path_is_one_word_for_the_shell(tmp_path):
    path = tmp_path / "a b; touch $(echo hacked) 'x'.onnx"
    path.write_bytes(b"12345")
    assert Evaluation("wc -c < {model}").of_file(str(path)) == 5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("print 5", UsageError, "neither module:function nor a command"),
        ("nowhere_to_be_found:f", UsageError, "no module is called 'nowhere_to_be_found'"),
        ("json:nothing", UsageError, "has no function 'nothing'"),
        ("echo {model} >&2; exit 3", RunError, "exit code 3: "),
        ("true {model}", RunError, "'' is no number"),
        ("echo {model}", RunError, "is no number"),
        ("echo nan # {model}", RunError, "'nan' is no number"),
        ("json:loads", RunError, "json:loads failed: JSONDecodeError"),
        ("posixpath:basename", RunError, "'model.onnx' is no number"),
    ],
)
def test_what_goes_wrong_is_said(spec, error, message):
    with pytest.raises(error, match=message):
        Evaluation(spec).of(load(str(DIGITS)))


def test_the_digest_follows_the_files_that_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "own_measure.py"
    found = set()
    for text in ("a = 1", "a = 2"):
        script.write_text(text)
        found |= {Evaluation(spec).digest for spec in ("own_measure:f", "python own_measure.py {model}")}
    assert len(found) == 4


def test_the_digest_of_a_command_with_a_long_word_is_its_text():
    long = f"python -c {'x' * 5000} {{model}}"
    assert Evaluation(long).digest != Evaluation(long.replace("xx", "xy")).digest


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere_to_be_found:f", UsageError, "no module is called 'nowhere_to_be_found'"),
        ("json:nothing", UsageError, "has no function 'nothing'"),
        ("json:decoder", UsageError, "has no function 'decoder'"),
        ("broken_module:f", RunError, "broken_module:f failed: ZeroDivisionError"),
        ("no-such-program {model}", UsageError, "no command is called 'no-such-program'"),
    ],
)
def test_what_is_wrong_is_known_before_any_work(spec, error, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        Evaluation(spec).check()


@pytest.mark.parametrize("spec", [size, "json:loads", "cd . && wc -c {model}", "A=1 wc -c {model}", "(true {model})"])
def test_what_may_work_passes_the_check(spec):
    Evaluation(spec).check()
