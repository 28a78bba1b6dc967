"""The request of `onnxprune prune`: the model, what is removed and how it is judged, and where the results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.cli import paths
from onnxprune.cli.kept_training import KeptTraining
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.cache import Cache
from onnxprune.cli.options.data import Data
from onnxprune.cli.options.execution import Where
from onnxprune.cli.options.search import SearchRequest
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.options.training import Learning
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.pipelines.prune import Outcome


@dataclass(frozen=True)
class PruneArgs(shared.Results):
    """What `prune` is asked for."""

    options: Options
    sizes: Sizes
    verify: bool
    time: bool
    only_if_faster: bool
    place: Where
    data: Data
    recover: str
    learning: Learning
    fine_tune_command: str | None
    resume: bool
    accept_damage: bool
    wanted: SearchRequest | None
    cache: Cache
    workers: Any

    @property
    def is_timed(self) -> bool:
        """Whether the result is measured against the model, whatever the budget."""
        return self.time or self.only_if_faster

    @property
    def kept(self) -> KeptTraining:
        """Where training is kept until the model is written; a search keeps its trials, and no training."""
        return KeptTraining(self.written if self.learning.steps and not self.wanted else None, self.resume)

    @property
    def may_replace(self) -> bool:
        """Whether existing files may be overwritten: those of an interrupted run may."""
        return self.force or self.kept.goes_on

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_results("small.onnx", plan_hint="`onnxprune plan` writes to standard output")
        if self.resume and self.wanted is not None:
            raise UsageError("--resume: a search keeps what it tried by itself", hint="leave out --resume")
        self.kept.check(inputs=[self.model], force=self.force)
        if not self.dry_run and self.wanted is not None:
            self.wanted.check(force=self.may_replace)
        rows = paths.row_map(self.output) if self.options.rows and self.output is not None else None
        paths.check_distinct(self.output, self.plan_out, self.told.report, self.told.picture, rows)
        if rows is not None and self.written is not None:
            paths.check_row_map(self.written, inputs=[self.model], force=self.may_replace)

    def write_outcome(self, console: Console, outcome: Outcome, texts: Mapping[str, str]) -> None:
        """Write the smaller model and the text files that go with it, or nothing; nothing in a dry run."""
        self.write(console, outcome.model, texts)
