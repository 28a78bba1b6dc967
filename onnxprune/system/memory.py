"""The memory that this process can still get, a limit on it, and refusing work that would take more."""

from __future__ import annotations

from pathlib import Path

from onnxprune.errors import UsageError

_MEMORY, _GROUP, _STATUS = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/status")


def limit_to(most: int) -> None:
    """Let this process, and those that it starts, hold no more data than `most` bytes: an allocation above it fails.

    Args:
        most: bytes of data of one process.

    Raises:
        UsageError: the system has no such limit, or a lower one.
    """
    try:
        import resource
    except ImportError as error:
        raise UsageError("--max-memory is for Linux: this system cannot limit a process") from error
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    except (ValueError, OSError, OverflowError) as error:
        raise UsageError(f"--max-memory: {most:,} bytes are not allowed here: {error}") from error


def free_memory() -> int | None:
    """Bytes that this process can still get.

    Returns:
        The least of what the machine, the container and the limit of the process leave; None where none is known.
    """
    known = [free for free in (_of_machine(), _of_group(), _of_limit()) if free is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    fields = _fields(_MEMORY)
    return fields["MemAvailable"] + fields.get("SwapFree", 0) if "MemAvailable" in fields else None


def _of_group() -> int | None:
    try:
        most, used = ((_GROUP / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return int(most) - int(used)
    except (OSError, ValueError):  # no group, or one without a limit
        return None


def _of_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    used = _fields(_STATUS).get("VmData")
    return None if used is None or most == resource.RLIM_INFINITY else most - used


def _fields(path: Path) -> dict[str, int]:
    """The sizes that a file of the system lists, in bytes; nothing where there is no such file."""
    try:
        lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    except OSError:
        return {}
    return {name: int(value.split()[0]) << 10 for name, _, value in lines if value.endswith("kB")}


def shortage(size: float) -> str:
    """Say that something takes more memory than is free.

    Args:
        size: bytes that it takes.

    Returns:
        The end of a sentence; empty where the memory suffices.
    """
    free = free_memory()
    if free is None or size <= free:
        return ""
    return f"takes {size / 2**30:,.1f} GiB of memory, {free / 2**30:,.1f} GiB are free"


def check_fits(what: str, size: int) -> None:
    """Refuse something that would take more memory than is free.

    Args:
        what: its name, for the message.
        size: bytes that it takes.

    Raises:
        UsageError: the memory does not suffice.
    """
    if short := shortage(size):
        raise UsageError(
            f"{what} {short}",
            hint="give less at once, or close other programs; --max-memory is a limit of your own",
        )
