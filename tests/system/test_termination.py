"""The orderly end, and the end at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from onnxprune.errors import Terminated
from onnxprune.system.termination import TERMINATED, killable, terminate


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_an_exit_with_its_code() -> None:
    signal.signal(signal.SIGTERM, terminate)
    with pytest.raises(Terminated) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == TERMINATED == 128 + signal.SIGTERM


def test_native_code_is_ended_at_once() -> None:
    signal.signal(signal.SIGTERM, terminate)
    with killable():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is terminate
    with pytest.raises(ZeroDivisionError), killable():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is terminate, "after an error, too"


def test_another_program_keeps_its_handler() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with killable():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_only_the_main_thread_has_handlers() -> None:
    signal.signal(signal.SIGTERM, terminate)
    seen = []

    def work() -> None:
        with killable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [terminate]
