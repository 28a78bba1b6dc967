"""What `onnxprune drop` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.pipelines.drop_options import DropOptions
    from onnxprune.pipelines.dropped import Dropped


@dataclass(frozen=True)
class DropArgs(shared.Results):
    """What `drop` is asked for."""

    options: DropOptions
    list_only: bool
    sizes: Sizes
    verify: bool
    data: Data
    accept_damage: bool

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        if self.list_only:
            self.told.check(inputs=[self.model], force=self.force)
            return
        self.check_results("small.onnx")
        paths.check_distinct(self.output, self.plan_out)
        self.check_amount()

    def check_amount(self) -> None:
        """Refuse a request that does not say how much goes."""
        if self.options.is_open:
            raise UsageError(
                "nothing says what to drop",
                hint="add --count 1, --ratio 25%, --params 80% or --blocks NAME; --list shows what there is",
            )

    def write_dropped(self, console: Console, done: Dropped) -> None:
        """Write the model and the plan, or nothing; nothing in a dry run."""
        self.write(console, done.model, self.plan_text(done.plan))
