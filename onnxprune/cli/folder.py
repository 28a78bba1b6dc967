"""`onnxprune prune FOLDER`, `drop FOLDER`, `plan FOLDER` and `apply FOLDER`: several graphs as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli import paths
from onnxprune.cli.apply_args import ApplyArgs
from onnxprune.cli.drop_args import DropArgs
from onnxprune.cli.options.common import WrittenModel
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.output import Console
from onnxprune.cli.plan_args import PlanArgs
from onnxprune.cli.prune_args import PruneArgs
from onnxprune.errors import UsageError
from onnxprune.folder import Folder, Smaller, check_folder_target, read_folder, write_folder
from onnxprune.pipelines.apply_folder import planned_folder, planned_model
from onnxprune.pipelines.drop_folder import shorter_folder
from onnxprune.pipelines.prune_folder import folder_options, smaller_folder

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.apply import Executed
    from onnxprune.pipelines.dropped import Dropped
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.rewriting import Plan


@dataclass(frozen=True)
class FolderArgs(PruneArgs):
    """What `prune` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def check(self) -> None:
        """Nothing: `of_folder` has checked everything."""

    def load(self, console: Console, sizes: Sizes) -> Model:
        """The graphs as one model."""
        return self.folder.model(rows=bool(self.options.rows))

    def write_outcome(self, console: Console, outcome: Outcome, texts: Mapping[str, str]) -> None:
        """Write the folder and the text files that go with it, or nothing; nothing in a dry run."""
        _write(console, self, smaller_folder(self.folder, outcome.plan, outcome), texts)


@dataclass(frozen=True)
class FolderDropArgs(DropArgs):
    """What `drop` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def check(self) -> None:
        """Nothing: `layers_of_folder` has checked everything."""

    def load(self, console: Console, sizes: Sizes) -> Model:
        """The graphs as one model."""
        return self.folder.model(rows=False)

    def write_dropped(self, console: Console, done: Dropped) -> None:
        """Write the folder and the plan, or nothing; nothing in a dry run."""
        _write(console, self, shorter_folder(self.folder, done), self.plan_text(done.plan))


@dataclass(frozen=True)
class FolderPlanArgs(PlanArgs):
    """What `plan` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def load(self) -> Model:
        """The graphs as one model."""
        return self.folder.model(rows=bool(self.options.rows))


@dataclass(frozen=True)
class FolderApplyArgs(ApplyArgs):
    """What `apply` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def check(self) -> None:
        """Nothing: `apply_to_folder` has checked everything."""

    def load(self, plan: Plan) -> Model:
        """The graphs as the one model that the plan was made for."""
        return planned_model(self.folder, plan)

    def write_executed(self, console: Console, plan: Plan, done: Executed) -> None:
        """Write the folder, or nothing."""
        console.progress("writing")
        write_folder(self.folder, planned_folder(self.folder, plan, done), Path(self.output), force=self.force)


def layers_of_folder(console: Console, args: DropArgs) -> FolderDropArgs:
    """The request to drop layers with the folder that it is about.

    Raises:
        UsageError: the folder cannot be read, or its place be written.
    """
    if not args.list_only:
        args.check_amount()
    folder = _folder(console, args, args.plan_out, is_read_only=args.list_only)
    options = replace(args.options, allow_io_changes=True)
    return FolderDropArgs(**_given(args, folder), options=options, sizes=_sizes(folder, args.sizes))


def of_folder(console: Console, args: PruneArgs) -> FolderArgs:
    """The request with the folder that it is about, and with options for its graphs.

    Raises:
        UsageError: it asks for what is made for a single file, the folder cannot be read, or its place be written.
    """
    alone = {
        "--fine-tune-command": args.fine_tune_command,
        "--max-drop, a search": args.wanted,
        "--train": args.learning.steps,
        "--drop": args.options.drop,
        "--shape": args.sizes.shapes,
    }
    _refuse(args.model, alone)
    folder = _folder(console, args, args.plan_out)
    options = folder_options(folder, args.options)
    return FolderArgs(**_given(args, folder), options=options, sizes=_sizes(folder, args.sizes))


def plan_of_folder(args: PlanArgs) -> FolderPlanArgs:
    """The request for a plan with the folder that it is about, and with options for its graphs.

    Raises:
        UsageError: it asks for what is made for a single file, or the folder cannot be read.
    """
    _refuse(args.model, {"--shape": args.sizes.shapes})
    folder = read_folder(Path(args.model))
    options = folder_options(folder, args.options)
    return FolderPlanArgs(**_given(args, folder), options=options, sizes=_sizes(folder, args.sizes))


def apply_to_folder(console: Console, args: ApplyArgs) -> FolderApplyArgs:
    """The request to carry a plan out with the folder that it is about.

    Raises:
        UsageError: the folder cannot be read, or its place be written.
    """
    args.check_zero()
    _refuse(args.model, {"--shape": args.sizes.shapes})
    if args.output == paths.PIPE:
        raise UsageError("a folder goes into a folder, not to standard output", hint="name one: -o smaller")
    check_folder_target(Path(args.model), Path(args.output), force=args.force)
    args.told.check(args.output, inputs=[args.model, args.plan], force=args.force)
    console.progress("loading")
    folder = read_folder(Path(args.model))
    return FolderApplyArgs(**_given(args, folder), sizes=args.sizes)


def _refuse(model: str, alone: Mapping[str, object]) -> None:
    """Refuse options that are made for a single file."""
    if wrong := next((option for option, given in alone.items() if given), None):
        raise UsageError(f"{wrong}: only for a single file, and {model} is a folder", hint="name a file in it")


def _folder(console: Console, args: WrittenModel, plan: str | None, *, is_read_only: bool = False) -> Folder:
    """Read the folder of a request.

    Raises:
        UsageError: it cannot be read, or its place be written.
    """
    if not is_read_only:
        if args.output == paths.PIPE or (args.output is None and not args.dry_run):
            raise UsageError("a folder goes into a folder: -o FOLDER is missing", hint="add -o smaller, or --dry-run")
        if args.written is not None:
            check_folder_target(Path(args.model), Path(args.written), force=args.force)
        if plan is not None and not args.dry_run:
            paths.check_target(plan, inputs=[args.model], force=args.force)
    args.told.check(args.output, plan, inputs=[args.model], force=args.force)
    console.progress("loading")
    return read_folder(Path(args.model))


def _given(args: PruneArgs | DropArgs | PlanArgs | ApplyArgs, folder: Folder) -> dict[str, Any]:
    """The fields of a request that stay as they are, with its folder."""
    given = {field.name: getattr(args, field.name) for field in fields(args)}
    return {name: value for name, value in given.items() if name not in ("options", "sizes")} | {"folder": folder}


def _sizes(folder: Folder, sizes: Sizes) -> Sizes:
    """The sizes that a folder states, and those that are given."""
    return Sizes({**folder.sizes, **sizes.numbers})


def _write(console: Console, args: FolderArgs | FolderDropArgs, smaller: Smaller, texts: Mapping[str, str]) -> None:
    """Write the folder and the text files that go with it, or nothing; nothing in a dry run."""
    if args.written is not None:
        console.progress("writing")
        with paths.staged(texts):
            write_folder(args.folder, smaller, Path(args.written), force=args.force)
