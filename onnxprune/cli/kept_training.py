"""The file beside an output that training is kept in until the model is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import paths
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.recovery import Saving

# What stands behind the name of the output.
SUFFIX = ".checkpoint"


@dataclass(frozen=True)
class KeptTraining:
    """Where training is kept while it lasts.

    Attributes:
        output: the file of the model; training is not kept where that is None or a pipe.
        resume: go on with what is there.
    """

    output: str | None
    resume: bool

    @property
    def path(self) -> str | None:
        """The file; None if there is none."""
        return None if self.output in (None, paths.PIPE) else f"{self.output}{SUFFIX}"

    @property
    def goes_on(self) -> bool:
        """Whether there is something to go on with; then an output that exists was written by this run, or may go."""
        return self.resume and self.path is not None and Path(self.path).exists()

    def check(self, *, inputs: Sequence[str], force: bool) -> None:
        """Refuse, before any work, a file that cannot be written, and one of a run that nobody said what to do with.

        Args:
            inputs: what is read, and so never overwritten.
            force: begin again.
        """
        if self.path is None:
            if self.resume:
                raise UsageError("--resume needs a file", hint="name one with -o; its checkpoint lies beside it")
            return
        paths.check_target(self.path, inputs=inputs, force=True)
        if Path(self.path).exists() and not self.resume and not force:
            raise UsageError(
                f"{self.path} is of a run that was interrupted",
                hint="--resume goes on with it, --force begins again",
            )

    def saving(self) -> Saving | None:
        """The same for the training itself; what is there is removed unless it is to go on."""
        if self.path is None:
            return None
        from onnxprune.recovery import Saving

        found = Saving(Path(self.path), resume=self.resume)
        if not self.resume:
            found.remove()
        return found

    def remove(self) -> None:
        """Remove what was kept: the model is written."""
        if (found := self.saving()) is not None:
            found.remove()
