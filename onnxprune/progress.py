"""How far long work is: told by whoever works, shown to whoever waits.

Who works calls a function with the name of what begins ("tracing"), and with a `WorkPart` where parts are counted.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

# Is told what is being done.
Progress = Callable[[str], None]

# Seconds between two looks at how long it takes; between two lines where lines cannot be overwritten.
TICK, PLAIN = 0.5, 10.0
# What a bar shows, in the words of tqdm: where parts are counted, and elsewhere.
BAR = "|{bar:12}| {elapsed}, {rate_noinv_fmt}, {remaining} left: {desc}"
NO_BAR = "{elapsed} {desc}"


class WorkPart(str):
    """The name of one of several equal parts of some work ("layer 3 of 17"): a text that knows how far the work is.

    Attributes:
        whole: the name of all of them.
        done: parts that are finished.
        total: parts.
        is_clock: the parts are seconds, which pass by themselves.
    """

    whole: str
    done: int
    total: int
    is_clock: bool

    @classmethod
    def of(cls, whole: str, number: int, total: int, more: str = "", *, finished: bool = False) -> WorkPart:
        """Name a part that begins, or that is finished.

        Args:
            whole: the name of all of them.
            number: from 1.
            total: parts.
            more: what the text says besides.
            finished: this part is.
        """
        return cls(f"{whole} {number} of {total}{more}")._with(whole, number - (not finished), total)

    @classmethod
    def of_time(cls, taken: float, whole: float, more: str = "") -> WorkPart:
        """Name the second of a given time that work is at.

        Args:
            taken: seconds of it that are gone.
            whole: all seconds.
            more: what the text says besides.
        """
        number, total = int(taken), max(1, int(whole))
        return cls(f"second {number} of {total}{more}")._with("second", number, total, is_clock=True)

    def after(self, seconds: float) -> float:
        """The parts that are finished so long after this was told."""
        return min(self.total, self.done + seconds) if self.is_clock else self.done

    def named(self, name: str) -> WorkPart:
        """The same part of work that is a part of something else."""
        return WorkPart(f"{name}: {self}")._with(f"{name}: {self.whole}", self.done, self.total, is_clock=self.is_clock)

    def _with(self, whole: str, done: int, total: int, *, is_clock: bool = False) -> WorkPart:
        self.whole, self.done, self.total, self.is_clock = whole, done, total, is_clock
        return self


def prefixed(name: str, stage: str) -> str:
    """Put a name in front of what is being done."""
    return stage.named(name) if isinstance(stage, WorkPart) else f"{name}: {stage}"


class ProgressBar:
    """Shows what is being done, with a bar, the rate and the time left where parts are counted.

    On a terminal, and in a notebook, in one place that is overwritten; elsewhere in a line every `PLAIN` seconds. A
    thread of its own shows that time passes; it ends with `close`.
    """

    def __init__(self, stream: IO[str]) -> None:
        """Prepare; nothing is shown before work has taken `TICK`.

        Args:
            stream: where it is shown.
        """
        self._stream = stream
        self._overwrites = stream.isatty() or _is_notebook()
        self._bar: Any = None
        self._name, self._stage = "", ""
        self._begun = self._told = self._since = 0.0
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._ticker: threading.Thread | None = None

    def __call__(self, stage: str) -> None:
        """Take in that a stage, or a part of one, begins."""
        with self._lock:
            name = stage.whole if isinstance(stage, WorkPart) else stage
            if name != self._name or _done(stage) < _done(self._stage):
                self.hide()
                self._name, self._begun = name, time.monotonic()
                self._told = self._begun
            self._stage, self._since = stage, time.monotonic()
            if isinstance(stage, WorkPart) and stage.is_clock:
                self._begun = self._since - stage.done
            if self._bar is not None:
                self._draw()
            if self._ticker is None:
                self._ended = threading.Event()
                self._ticker = threading.Thread(target=self._tick, args=(self._ended,), daemon=True)
                self._ticker.start()

    def hide(self) -> None:
        """Take away what is shown, until it is drawn again."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def close(self) -> None:
        """Take away what is shown, and end the thread; another stage begins again."""
        with self._lock:
            self.hide()
            self._ended.set()
            self._name, self._stage, self._ticker = "", "", None

    def _draw(self) -> None:
        counted = isinstance(self._stage, WorkPart)
        if self._bar is None:
            form: dict[str, Any] = {"bar_format": BAR if counted else NO_BAR, "leave": False, "smoothing": 0}
            if self._stream.isatty():  # a terminal that does not tell its size has one of zero
                form |= {"ncols": shutil.get_terminal_size().columns - 1, "nrows": 2}
            total = self._stage.total if isinstance(self._stage, WorkPart) else None
            self._bar = _tqdm()(total=total, desc=str(self._stage), unit="", file=self._stream, **form)
            self._bar.start_t -= time.monotonic() - self._begun
        self._bar.set_description_str(str(self._stage), refresh=False)
        self._bar.update(round(_done(self._stage, time.monotonic() - self._since)) - self._bar.n)
        self._bar.refresh()

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(TICK):
            with self._lock:
                if ended.is_set():
                    return
                now = time.monotonic()
                if self._overwrites:
                    self._draw()
                elif now - self._told >= PLAIN:
                    self._told = now
                    self._stream.write(plain_line(self._stage, now - self._begun, now - self._since) + "\n")
                    self._stream.flush()


def _done(stage: str, seconds: float = 0.0) -> float:
    return stage.after(seconds) if isinstance(stage, WorkPart) else 0


def plain_line(stage: str, seconds: float, since: float = 0.0) -> str:
    """Say what has been done for so long, and how long the rest will take where parts are counted.

    Args:
        stage: what is being done.
        seconds: since the first of its parts began.
        since: seconds since this was told.
    """
    done = _done(stage, since)
    if isinstance(stage, WorkPart) and done > 0:
        left = stage.total - done if stage.is_clock else seconds / done * (stage.total - done)
        return f"{stage}, {_clock(left)} left"
    return f"{stage}, for {_clock(seconds)}"


def _clock(seconds: float) -> str:
    """`3 s`, `2:05 min`, `1:00 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


@contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Make a function of what a caller asks for.

    Args:
        progress: True shows a bar, on standard error or in the notebook; a function is told every stage; anything else
            shows nothing.

    Yields:
        What is told every stage; None where nobody is told.
    """
    if progress is not True:
        yield progress or None
        return
    bar = ProgressBar(sys.stderr)
    try:
        yield bar
    finally:
        bar.close()


def _is_notebook() -> bool:
    """Whether this process is the kernel of a notebook: others may import kernels, to start some."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _tqdm() -> Any:
    """The bar of a notebook or of a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notebook's bar calls itself an experiment
        from tqdm.autonotebook import tqdm
    return tqdm
