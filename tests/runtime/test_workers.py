"""Jobs give the same wherever they run; lost workers cost time only, and no worker outlives who asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.runtime.workers import Work, stream


def adder(shared):
    return lambda job: (shared + job, os.getpid())


def fails(shared):
    def call(job):
        if job == 2:
            raise UsageError("job 2 is bad", hint="leave it out")
        return job

    return call


def dies_once(mark):
    """Of all calls with job 1 the first ends its process."""

    def call(job):
        if job == 1 and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    return call


def dies(shared):
    return lambda job: os.kill(os.getpid(), signal.SIGKILL)


def sleeper(folder):
    def call(job):
        (Path(folder) / str(os.getpid())).touch()
        time.sleep(60)

    return call


def hoarder(folder):
    """Leaves a temporary file and its own number behind, and sleeps."""

    def call(job):
        (Path(tempfile.mkdtemp(prefix="hoard-")) / "large").write_bytes(b"activations")
        return sleeper(folder)(job)

    return call


def test_here_on_threads_and_on_processes_the_results_are_the_same():
    with ThreadPoolExecutor(2) as threads:
        found = [dict(stream(Work(adder, 10), range(5), workers)) for workers in (1, 2, threads)]
    assert [[r[0] for _, r in sorted(f.items())] for f in found] == [[10, 11, 12, 13, 14]] * 3
    assert [os.getpid() in {r[1] for r in f.values()} for f in found] == [True, False, True]


def test_no_jobs_need_no_worker():
    assert list(stream(Work(adder, 10), [], 2)) == []


def test_what_a_job_raises_reaches_who_asked_with_its_hint():
    with pytest.raises(UsageError, match="job 2 is bad") as caught:
        dict(stream(Work(fails, None), range(4), 2))
    assert caught.value.hint == "leave it out"


def test_the_jobs_of_a_process_that_is_lost_are_done_again(tmp_path):
    mark = tmp_path / "died"
    assert dict(stream(Work(dies_once, str(mark)), range(4), 2)) == {i: i for i in range(4)}
    assert mark.exists()


def test_workers_that_end_again_and_again_are_an_error():
    with pytest.raises(RunError, match="worker processes end unexpectedly"):
        dict(stream(Work(dies, None), range(2), 2))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def asked(work: str, tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """(a process whose two workers do `work`, these as soon as they do)."""
    marks, folder = tmp_path / "marks", tmp_path / "temporary"
    marks.mkdir()
    folder.mkdir()
    call = f"dict(stream(Work({work}, {str(marks)!r}), [1, 2], 2))"
    script = tmp_path / "script.py"
    script.write_text(f"from tests.runtime.test_workers import *\nif __name__ == '__main__': {call}")
    root = str(Path(__file__).parents[2])
    asker = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": root, "TMPDIR": str(folder)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while len(pids := [int(p.name) for p in marks.iterdir()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return asker, pids


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_asked_and_leave_no_files(tmp_path, how):
    asker, pids = asked("hoarder", tmp_path)
    assert len(list((tmp_path / "temporary").rglob("large"))) == 2
    asker.send_signal(how)
    asker.wait(10)
    deadline = time.monotonic() + 10
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((tmp_path / "temporary").rglob("large"))
    if how == signal.SIGINT:
        assert not [p for p in (tmp_path / "temporary").iterdir() if "onnxprune" in p.name]


UNGUARDED = """
from onnxprune.runtime.workers import Work, stream
from tests.runtime.test_workers import adder
print(sorted(total for _, (total, _) in stream(Work(adder, 10), [1, 2, 3], 2)))
"""
FAILING = """
from onnxprune.errors import UsageError
from onnxprune.runtime.workers import Work, stream
from tests.runtime.test_workers import fails
try:
    list(stream(Work(fails, None), [2, *range(3, 40)], 2))
except UsageError as error:
    print(error.message)
"""
OWN = """
from onnxprune.runtime.workers import Work, stream
def own(shared):
    return lambda job: shared * job
if __name__ == "__main__":
    print(sorted(product for _, product in stream(Work(own, 10), [1, 2], 2)))
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [(UNGUARDED, "[11, 12, 13]"), (FAILING, "job 2 is bad"), (OWN, "[10, 20]")],
    ids=["without a guard", "a job fails", "a function of the script"],
)
def test_scripts(script, said, tmp_path):
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, timeout=300,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr, done.returncode) == (said, "", 0)
