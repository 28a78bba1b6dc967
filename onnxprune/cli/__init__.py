"""The command line; importing it imports neither onnx nor numpy."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import click

from onnxprune.cli.app import app
from onnxprune.cli.output import Console
from onnxprune.errors import OnnxPruneError
from onnxprune.system import rare_collections, terminate

USAGE = 2
RUNTIME = 4
INTERNAL = 70
INTERRUPTED = 130
READER_GONE = 141

_COMPLETION = "_ONNXPRUNE_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; by default `sys.argv`.

    Returns:
        The exit code: 0 done, 1 a goal was missed, 2 usage, 3 model, 4 runtime, 70 a bug, 130 interrupted.
    """
    console = Console()
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with rare_collections():
            code = _run(list(sys.argv[1:] if arguments is None else arguments), console)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter would flush stdout once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the user gets a message and a code
        console.finish()
        if console.verbosity > 1:
            console.trace(error)
        return _interrupted(console) if _is_of_interrupt(error) else _explain(error, console)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(console)
    finally:
        console.finish()
        signal.signal(signal.SIGTERM, before)
        console.detach_log()


def _run(arguments: list[str], console: Console) -> int:
    if _COMPLETION in os.environ:
        app.main(arguments, prog_name="onnxprune")
    console.command = tuple(arguments)
    try:
        with app.make_context("onnxprune", arguments or ["--help"], obj=console) as context:
            app.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


def _interrupted(console: Console) -> int:
    console.error("interrupted")
    return INTERRUPTED


def _is_of_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: native code may hand on another one than it was given."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _explain(error: Exception, console: Console) -> int:
    """Say in one or two lines what went wrong; the exit code."""
    if isinstance(error, OnnxPruneError):
        console.error(error.message, error.hint)
        return error.exit_code
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "onnxprune"
        console.error(_sentence(error.format_message()), hint=f"see '{path} --help'")
        return USAGE
    if isinstance(error, click.ClickException):
        console.error(_sentence(error.format_message()))
        return USAGE
    if isinstance(error, MemoryError):
        console.error("out of memory", hint="close other programs, or use a machine with more memory")
        return RUNTIME
    if isinstance(error, OSError) and error.errno is not None:  # of a file that was checked before, or of the console
        console.error(
            f"{error.filename or 'standard output'}: {error.strerror}", hint="is there room left, and access?"
        )
        return RUNTIME
    text = " ".join(str(error).split())
    console.error(
        f"internal error: {type(error).__name__}: {text}",
        hint="please report it, with the traceback that -vv prints",
    )
    return INTERNAL


def _sentence(text: str) -> str:
    """Click's messages in the form of all others: no capital, no full stop."""
    return text[:1].lower() + text[1:].rstrip(".")


__all__ = ["main"]
