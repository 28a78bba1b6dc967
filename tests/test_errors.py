"""Errors that a user can meet: what they say, and the code that the command line ends with."""

from __future__ import annotations

import inspect

import pytest

from onnxprune import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.OnnxPruneError)]


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    codes = {kind.__name__: kind.exit_code for kind in KINDS if kind is not errors.OnnxPruneError}
    assert codes == {"GoalMissed": 1, "UsageError": 2, "ModelError": 3, "RunError": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_and_a_hint(kind: type[errors.OnnxPruneError]) -> None:
    error = kind("it does not work", hint="do it otherwise")
    assert (error.message, error.hint) == ("it does not work", "do it otherwise")
    assert "it does not work" in str(error) and "do it otherwise" in str(error)
    plain = kind("it does not work")
    assert plain.hint == kind.default_hint and str(plain) == "\n".join(filter(None, (plain.message, plain.hint)))


def test_one_class_catches_them_all() -> None:
    for kind in KINDS:
        with pytest.raises(errors.OnnxPruneError):
            raise kind("x")
