"""The only place that prints: the product on stdout, the conversation on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

import click

from onnxprune.progress import ProgressBar

if TYPE_CHECKING:
    import logging


class Console:
    """What a command says, and how much of it.

    Attributes:
        quiet: only errors are said.
        verbosity: 0; 1 with `-v` (stages and their times), 2 with `-vv` (debug log, tracebacks).
        command: the arguments of the program.
    """

    def __init__(self) -> None:
        self.quiet = False
        self.verbosity = 0
        self.command: tuple[str, ...] = ()
        self._bar = ProgressBar(sys.stderr)
        self._log_before: tuple[list[logging.Handler], int] | None = None

    # --- stdout ------------------------------------------------------------------------------------------

    def put(self, lines: str | Iterable[str]) -> None:
        """Print the product; on a terminal, lines that are too long for it are wrapped."""
        self.finish()
        click.echo(_fitted(lines, sys.stdout))

    def put_json(self, document: Any) -> None:
        """Print the product as JSON."""
        self.finish()
        click.echo(json.dumps(document, indent=1, allow_nan=False))

    # --- stderr ------------------------------------------------------------------------------------------

    def say(self, lines: str | Iterable[str]) -> None:
        """Tell the user, unless quiet."""
        if not self.quiet:
            self._tell(lines if isinstance(lines, str) else "\n".join(lines))

    def hint(self, text: str) -> None:
        """Say what else could be done: once, not in every run; with `-v` always."""
        if self.quiet:
            return
        from onnxprune.runtime import said_before

        if not said_before(text) or self.verbosity:
            self._tell(f"hint: {text}")

    def detail(self, lines: str | Iterable[str]) -> None:
        """Tell the user who asked for more."""
        if self.verbosity and not self.quiet:
            self.say(lines)

    def progress(self, stage: str) -> None:
        """Show what is being done: every stage in a line with `-v`, else as `ProgressBar` does."""
        if self.quiet:
            return
        if self.verbosity:
            self._tell(f"{stage} ...")
        else:
            self._bar(stage)

    def error(self, message: str, hint: str = "") -> None:
        """Say what went wrong and what to do; quiet or not."""
        self._tell(f"error: {message}" + (f"\nhint: {hint}" if hint else ""))

    def warn(self, message: str, *, loud: bool = False) -> None:
        """Say what is not as it should be; if `loud`, quiet or not."""
        if loud or not self.quiet:
            self._tell(f"warning: {message}")

    def trace(self, error: BaseException) -> None:
        """Show where an error came from."""
        import traceback

        self._tell("".join(traceback.format_exception(error)).rstrip())

    def finish(self) -> None:
        """End what is shown of the progress."""
        self._bar.close()

    def _tell(self, text: str) -> None:
        self._bar.hide()
        click.echo(_fitted(text, sys.stderr), err=True)

    # --- log ---------------------------------------------------------------------------------------------

    def attach_log(self) -> None:
        """Say what the library logs, until `detach_log`: warnings, with `-v` also what it does, with `-vv` all."""
        import logging
        import warnings

        console = self

        class Said(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                level = record.levelname.lower()
                console.say(f"{level}: {record.getMessage()}")

        if self.verbosity < 2:  # those of Python, about lines of code, are for developers
            warnings.simplefilter("ignore")
        logger = logging.getLogger("onnxprune")
        if self._log_before is None:
            self._log_before = (logger.handlers[:], logger.level)
        logger.handlers[:] = [Said()]
        logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbosity, 2)])

    def detach_log(self) -> None:
        """Give the library's log back to the program that calls the command line."""
        if self._log_before is not None:
            import logging

            logger = logging.getLogger("onnxprune")
            logger.handlers[:], level = self._log_before
            logger.setLevel(level)
            self._log_before = None


# Columns of the name in front of an entry of an account, and the narrowest terminal that lines are wrapped for.
_NAME, _NARROWEST = 9, 40


def _fitted(lines: str | Iterable[str], stream: IO[str]) -> str:
    """Lines as one text; on a terminal wrapped to its width, but for the rows of tables."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    width = shutil.get_terminal_size().columns
    if not stream.isatty() or width < _NARROWEST:
        return text
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    """A line in parts that are no longer than the width, those after the first under the text of the first."""
    if len(line) <= width or "  " in line[_NAME:]:
        return line
    indent = _NAME if line[_NAME - 1] == " " else 2
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
