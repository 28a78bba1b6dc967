"""What `apply` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.cli import paths
from onnxprune.cli.options.data import Data
from onnxprune.cli.options.reporting import Reporting
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.apply import Executed
    from onnxprune.rewriting import Plan


@dataclass(frozen=True)
class ApplyArgs:
    """What `apply` is asked for."""

    model: str
    plan: str
    output: str
    zero: bool
    verify: bool
    sizes: Sizes
    data: Data
    recover: str
    accept_damage: bool
    force: bool
    told: Reporting

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_zero()
        paths.check_one_pipe(self.model, self.plan)
        paths.check_one_result(self.output, as_json=self.told.as_json)
        paths.check_target(self.output, inputs=[self.model, self.plan], force=self.force)
        self.told.check(self.output, inputs=[self.model, self.plan], force=self.force)

    def check_zero(self) -> None:
        """Refuse data where nothing is fitted."""
        if self.zero and self.data.source is not None:
            raise UsageError("--zero leaves nothing to re-fit with --data", hint="leave one of them out")

    def load(self, plan: Plan) -> Model:
        """Load the model, and refuse before the long work what cannot be written."""
        if plan.options.get("rows"):
            paths.check_row_map(self.output, inputs=[self.model, self.plan], force=self.force)
        source = self.sizes.load(self.model)
        paths.check_output(source, self.output, force=self.force)
        return source

    def write_executed(self, console: Console, plan: Plan, done: Executed) -> None:
        """Write the model, with the new numbers of rows that were kept by name."""
        from onnxprune.model import save

        console.progress("writing")
        with paths.staged(paths.row_map_text(done.rows, self.output)):
            save(done.model, self.output, force=self.force)
