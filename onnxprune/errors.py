"""Every error that a user can meet: what happened, what to do about it, and the exit code of the command line."""

from __future__ import annotations


class OnnxPruneError(Exception):
    """An expected failure.

    Args:
        message: what is wrong and where (file, node, tensor).
        hint: what to do about it; may be empty.
    """

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class GoalMissed(OnnxPruneError):
    """The work was done but a goal was not reached (nothing to prune, budget unreachable, proof failed)."""

    exit_code = 1


class UsageError(OnnxPruneError):
    """The request cannot be carried out as asked (bad option, no such file, output exists)."""

    exit_code = 2


class ModelError(OnnxPruneError):
    """The model is invalid or uses something that is not supported."""

    exit_code = 3
    default_hint = "the file is damaged, or was written wrongly: export it again"


class RunError(OnnxPruneError):
    """The runtime or the calibration data failed."""

    exit_code = 4


class Terminated(SystemExit):
    """The program was asked to end; no user's code that runs meanwhile may stop that."""
