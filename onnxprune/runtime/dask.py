"""The only module that knows Dask: a cluster as an executor, which posts a large object to every worker once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxprune.errors import RunError, UsageError

# Seconds that a scheduler has for answering.
PATIENCE = 30


@contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """A `distributed.Client`.

    Args:
        scheduler: an address (`tcp://host:8786`), or the path of a scheduler file (.json).

    Raises:
        UsageError: there is no such file, or Dask is not installed.
        RunError: no scheduler answers.
    """
    if scheduler.endswith(".json") and not Path(scheduler).is_file():  # Dask would wait for it for ever
        raise UsageError(f"no such file: {scheduler}", hint="`dask scheduler --scheduler-file FILE` writes it")
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("a Dask cluster needs dask.distributed", hint="pip install 'onnxprune[dask]'") from error
    where = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    try:
        client = Client(**where, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler}: {error}", hint="is it running?") from error
    with client:
        yield client


@contextmanager
def posted(client: Any, post: Callable[[str, bytes | None], None], key: str, content: bytes) -> Iterator[Executor]:
    """An executor on a cluster where every worker, also one that joins later, has called `post(key, content)` once.

    In the end they call `post(key, None)`.
    """
    from distributed import WorkerPlugin

    class Parcel(WorkerPlugin):
        """Goes to every worker once."""

        def __init__(self) -> None:
            self.post, self.key, self.content = post, key, content

        def setup(self, worker: Any) -> None:
            self.post(self.key, self.content)

        def teardown(self, worker: Any) -> None:
            self.post(self.key, None)

    client.register_plugin(Parcel(), name=f"onnxprune-{key}")
    try:
        yield client.get_executor(pure=False)
    finally:
        client.unregister_worker_plugin(f"onnxprune-{key}")
