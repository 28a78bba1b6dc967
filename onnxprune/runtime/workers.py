"""Independent jobs: in this process, on local processes, on any `concurrent.futures.Executor`, or on a Dask cluster.

What the jobs of some work share (a model, its inputs) is shipped to every worker once, and made ready there once per
thread. Results come back as they are finished. What a job gives depends on nothing but the job and what is shared, so
where it runs makes no difference, and the jobs of a worker that is lost are simply done again.
"""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from onnxprune.errors import RunError

Job = Any
# So many local pools in a row may break without any result before the work is given up.
BREAKS = 3
_ADVICE = (
    "is there enough memory? use fewer workers (--jobs); a script that hands over functions of its own needs "
    "`if __name__ == '__main__':` in front of its work"
)
# Where numpy's libraries find how many threads to use.
ALGEBRA = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Work:
    """What jobs have in common.

    Attributes:
        prepare: a function of a module, called with `shared` once per worker thread; gives what is called with a job.
        shared: what is shipped to every worker; it is pickled.
    """

    prepare: Callable[[Any], Callable[[Job], Any]]
    shared: Any


def stream(work: Work, jobs: Sequence[Job], workers: Any = 1) -> Iterator[tuple[int, Any]]:
    """Do all jobs.

    Args:
        work: what they have in common.
        jobs: one picklable value each.
        workers: 1 for this process; more for so many local processes; an Executor (whose workers see the files of this
            machine); or a `distributed.Client`.

    Yields:
        (index of the job, its result), in the order in which they are finished.

    Raises:
        RunError: local workers are lost again and again.
        Exception: what a job raised.
    """
    if jobs:
        with crew(work, min(workers, len(jobs)) if isinstance(workers, int) else workers) as done:
            yield from done(jobs)


# From jobs to (index of the job, its result), in the order in which they are finished.
Crew = Callable[[Sequence[Job]], Iterator[tuple[int, Any]]]


@contextmanager
def crew(work: Work, workers: Any = 1) -> Iterator[Crew]:
    """Keep workers ready for the jobs of some work, again and again.

    Args:
        work: what the jobs have in common.
        workers: as for `stream`.

    Yields:
        What does jobs; see `stream` for what it raises.
    """
    if isinstance(workers, int):
        if workers == 1:
            perform = work.prepare(work.shared)
            yield lambda jobs: ((index, perform(job)) for index, job in enumerate(jobs))
            return
        with _filed(work) as ticket, _LocalCrew(ticket, workers) as local:
            yield local
    elif isinstance(workers, Executor):
        with _filed(work) as ticket:
            yield lambda jobs: _on(workers, ticket, dict(enumerate(jobs)))
    else:
        from onnxprune.runtime import dask

        ticket = Ticket(uuid.uuid4().hex)
        with dask.posted(workers, post, ticket.key, pickle.dumps(work)) as executor:
            yield lambda jobs: _on(executor, ticket, dict(enumerate(jobs)))


def width(workers: Any) -> int:
    """How many jobs run at the same time, as far as it can be told; else 1."""
    if isinstance(workers, int):
        return workers
    if isinstance(workers, Executor):
        return getattr(workers, "_max_workers", 1)
    return max(1, len(workers.scheduler_info()["workers"]))


# --- on the side of who asks ------------------------------------------------------------------------------


def _on(executor: Executor, ticket: Ticket, jobs: Mapping[int, Job]) -> Iterator[tuple[int, Any]]:
    futures = {executor.submit(do, ticket, job): index for index, job in jobs.items()}
    try:
        yield from _results(futures)
    finally:
        for future in futures:
            future.cancel()


def _results(futures: Mapping[Future[Any], int]) -> Iterator[tuple[int, Any]]:
    for future in as_completed(futures):
        yield futures[future], future.result()


class _LocalCrew:
    """Processes of this machine; those that are lost are replaced, and their jobs done again."""

    def __init__(self, ticket: Ticket, count: int) -> None:
        self._ticket, self._count = ticket, count
        self._pool: ProcessPoolExecutor | None = None
        self._open = ExitStack()

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        """Do jobs; see `stream`."""
        left, breaks = dict(enumerate(jobs)), 0
        while left:
            try:
                if self._pool is None:
                    self._pool = self._open.enter_context(_pool(min(self._count, len(jobs))))
                # A pool that ends with its processes cannot have its futures cancelled: its thread would complain.
                for index, result in _results(_submitted(self._pool, self._ticket, left)):
                    del left[index]
                    breaks = 0
                    yield index, result
            except BrokenProcessPool as error:
                self._pool, breaks = None, breaks + 1
                self._open.close()
                if breaks == BREAKS:
                    raise RunError("worker processes end unexpectedly", hint=_ADVICE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def _submitted(pool: Executor, ticket: Ticket, jobs: Mapping[int, Job]) -> dict[Future[Any], int]:
    """Hand jobs to a pool of local processes, which begin here.

    A process that is spawned begins by importing the main module of who asks: a script without a guard would begin its
    own work again. Unless the jobs need something of that module, the processes do not see it.
    """
    with nullcontext() if ticket.needs_main else _without_main():
        return {pool.submit(do, ticket, job): index for index, job in jobs.items()}


@contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the pool, at once if it is left by an exception, and if this process is killed.

    Their temporary files lie in one folder, since a process that ends at once does not clean up.
    """
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        pool = ProcessPoolExecutor(count, context, _begin, (reader, folder))
        try:
            yield pool
        except BaseException:
            writer.close()
            raise
        finally:
            pool.shutdown()
            writer.close()
            reader.close()


@contextmanager
def _filed(work: Work) -> Iterator[Ticket]:
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "work"
        with path.open("wb") as file:
            pickle.dump(work, file)
        yield Ticket(uuid.uuid4().hex, str(path), needs_main=_names_main(path))


def _names_main(path: Path) -> bool:
    """Whether what is pickled in a file names something of the main module."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"__main__") >= 0


# --- on the side of the workers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """Where a worker finds what jobs have in common: in a file, or among what was posted to it.

    Attributes:
        key: of the work.
        path: of the file.
        needs_main: whether the work names something of the main module of who asks.
    """

    key: str
    path: str = ""
    needs_main: bool = False


_POSTED: dict[str, bytes] = {}
_ready = threading.local()


def post(key: str, content: bytes | None) -> None:
    """Leave pickled work for the jobs with a ticket of this key; None takes it away."""
    if content is None:
        _POSTED.pop(key, None)
    else:
        _POSTED[key] = content


def do(ticket: Ticket, job: Job) -> Any:
    """Do one job on a worker; what it shares with others is made ready by the first."""
    if getattr(_ready, "key", None) != ticket.key:
        work: Work = pickle.loads(Path(ticket.path).read_bytes() if ticket.path else _POSTED[ticket.key])
        _ready.perform, _ready.key = None, None  # frees what was there
        _ready.perform = work.prepare(work.shared)
        _ready.key = ticket.key
    return _ready.perform(job)


def _begin(line: Connection, folder: str) -> None:
    """Leave interrupts to the process that asks, and end when it does; use one thread, as all do.

    Args:
        line: is closed when the process that asks ends.
        folder: where temporary files go.
    """
    tempfile.tempdir = folder
    for name in ALGEBRA:  # read when numpy is imported, which is later
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(line, folder), daemon=True).start()


def _end_with(line: Connection, folder: str) -> None:
    try:
        line.recv()  # nothing is ever sent
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)  # who asked may have been killed
        os._exit(1)
