"""The folder beside an output in which finished parts of long work are kept until all of it is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxprune.cli.paths import PIPE
from onnxprune.errors import OnnxPruneError, UsageError

# The file of results in the folder.
JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class WorkFolder:
    """Where finished parts are kept.

    Attributes:
        path: the folder; None for a temporary one, if the model goes to no file.
        noun: what a part is called.
        resume: go on with the parts that are there.
        keep: leave the folder when all is done.
    """

    path: Path | None
    noun: str
    resume: bool
    keep: bool = False

    @classmethod
    def beside(cls, output: str | None, noun: str, *, resume: bool, keep: bool) -> WorkFolder:
        """The folder of an output: its name with the parts' behind it; a temporary one where no file is written."""
        path = None if output in (None, PIPE) else Path(f"{output}.{noun}s")
        return cls(path, noun, resume, keep=keep)

    def check(self, *, force: bool) -> None:
        """Refuse, before any work, a folder that nobody said what to do with.

        Args:
            force: begin again.
        """
        if self.path is None:
            for name, given in (("--resume", self.resume), (f"--keep-{self.noun}s", self.keep)):
                if given:
                    raise UsageError(f"{name} needs a file", hint=f"name one with -o; the {self.noun}s lie beside it")
        elif self.path.exists() and not self.resume and not force:
            raise UsageError(
                f"{self.path} holds the {self.noun}s of a run that was interrupted",
                hint="--resume goes on with them, --force begins again",
            )

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Make the folder; it stays where the run is interrupted after a part was finished."""
        if self.path is None:
            with TemporaryDirectory(prefix="onnxprune-run-") as name:
                yield Path(name)
            return
        if self.path.exists() and not self.resume:
            _remove(self.path, self.noun)
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            yield self.path
        except BaseException as error:
            if not (self.path / JOURNAL).exists() and not any(self.path.glob("*.checkpoint")):
                _remove(self.path, self.noun)
            elif isinstance(error, OnnxPruneError):
                raise type(error)(error.message, hint=self._go_on(error.hint)) from error
            raise
        if not self.keep:
            _remove(self.path, self.noun)

    def _go_on(self, hint: str) -> str:
        """A hint, and how finished parts are used."""
        kept = f"the {self.noun}s that are finished are kept: --resume goes on from there"
        return f"{hint}; {kept}" if hint else kept


def _remove(folder: Path, noun: str) -> None:
    """Remove the folder of an older run.

    Raises:
        UsageError: it holds something else.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is no folder of {noun}s", hint="move it away")
    strangers = [p.name for p in folder.iterdir() if p.name != JOURNAL and not p.name[:1].isdigit()]
    if strangers:
        raise UsageError(f"{folder} holds other files: {', '.join(sorted(strangers)[:3])}", hint="move it away")
    shutil.rmtree(folder)
