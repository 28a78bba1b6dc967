"""Where training is kept, so that it can be continued."""

from __future__ import annotations

import glob
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Saving:
    """The file that training is kept in.

    Attributes:
        path: the file. Where a command trains several times, those after the first have a number behind the name.
        resume: continue from the file, if it is there.
        belongs_to: digest of the model, the data and all else that decides what is trained.

    Example:
        >>> import onnxprune
        >>> options = onnxprune.TrainingOptions(4, rate=1e-3, saving=onnxprune.Saving("digits.checkpoint", resume=True))
        >>> options.saving.path.name
        'digits.checkpoint'
    """

    path: Path
    resume: bool = False
    belongs_to: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def numbered(self, number: int) -> Saving:
        """The file of one training of several, counted from 1."""
        return self if number == 1 else replace(self, path=self.path.with_name(f"{self.path.name}-{number}"))

    def remove(self) -> None:
        """Remove the files of all trainings, that of the first one last: it says that there are others."""
        later = self.path.parent.glob(f"{glob.escape(self.path.name)}-[0-9]*")
        for path in (*later, self.path):
            path.unlink(missing_ok=True)
