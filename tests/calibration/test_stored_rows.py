"""Data that is larger than memory: it is read in pieces, and gives what it would give from memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import calibration
from onnxprune.calibration import arrays, stored_rows
from onnxprune.calibration.stored_rows import Allowance, StoredRows, computed
from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model
from tests.graphs.net import Net

RNG = np.random.default_rng(0)


def model(batch: int | str = "n") -> Model:
    net = Net()
    x = net.input((batch, 3, 5))
    net.output(net.add("Relu", x))
    return net.model()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 100 bytes is large."""
    monkeypatch.setattr(arrays, "LARGEST_READ", 100)
    monkeypatch.setattr(stored_rows, "LARGEST_HELD", 100)
    monkeypatch.setattr(stored_rows, "PIECE", 130)


def is_mapped(array: Any) -> bool:
    """Whether the elements lie in a file."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


X = RNG.standard_normal((41, 3, 5)).astype(np.float32)


def sources(folder: Path) -> dict[str, Any]:
    """The same kinds of data, as different sources."""
    np.save(folder / "plain.npy", X)
    np.save(folder / "fortran.npy", np.asfortranarray(X))
    np.savez(folder / "named.npz", x=X)
    np.savez_compressed(folder / "packed.npz", x=X)
    np.save(folder / "whole.npy", (X * 100).astype(np.int16))
    np.savez(folder / "samples.npz", *X)
    (folder / "many").mkdir()
    for number, part in enumerate(np.split(X, [3, 11, 12, 30])):
        np.save(folder / "many" / f"{number}.npy", part)
    names = ("plain.npy", "fortran.npy", "named.npz", "packed.npz", "whole.npy", "samples.npz", "many")
    return {name: str(folder / name) for name in names}


NAMES = ("plain.npy", "fortran.npy", "named.npz", "packed.npz", "whole.npy", "samples.npz", "many")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "samples"), [("n", 100), ("n", 20), (4, 100), (4, 17), (1, 41)])
def test_large_data_gives_what_small_data_gives(
    tmp_path: Path, request: pytest.FixtureRequest, name: str, batch: int | str, samples: int
) -> None:
    source = sources(tmp_path)[name]
    small = calibration.read(source, model(batch), samples=samples, batch=8)
    request.getfixturevalue("tiny")
    large = calibration.read(source, model(batch), samples=samples, batch=8)
    assert len(large) == len(small) and all(is_mapped(run["x"]) for run in large)
    assert not any(is_mapped(run["x"]) for run in small)
    for one, two in zip(small, large, strict=True):
        assert one["x"].dtype == two["x"].dtype == np.float32 and np.array_equal(one["x"], two["x"])
    assert calibration.digest(small) == calibration.digest(large)


def test_feeds_from_code_are_not_put_together(request: pytest.FixtureRequest) -> None:
    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for count in (1, 9, 2, 20, 3):
            yield {"x": RNG.standard_normal((count, 3, 5)).astype(np.float32)}

    given = list(feeds())
    request.getfixturevalue("tiny")
    runs = calibration.read(iter(given), model(), samples=30, batch=8)
    assert [len(run["x"]) for run in runs] == [1, 8, 1, 2, 8, 8, 2]
    assert np.array_equal(np.concatenate([run["x"] for run in runs])[:12], np.concatenate([g["x"] for g in given])[:12])
    assert is_mapped(runs[-1]["x"])


@pytest.mark.usefixtures("tiny")
def test_what_is_wrong_in_a_late_piece_is_found(tmp_path: Path) -> None:
    wrong = X.copy()
    wrong[40, 2, 4] = np.nan
    np.save(tmp_path / "nan.npy", wrong)
    with pytest.raises(UsageError, match="holds NaN"):
        calibration.read(str(tmp_path / "nan.npy"), model())
    plain = (tmp_path / "nan.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(plain[:-40])
    with pytest.raises(UsageError, match=r"an array of shape \[41, 3, 5\] in|ends in the middle"):
        calibration.read(str(tmp_path / "short.npy"), model())
    np.savez_compressed(tmp_path / "packed.npz", x=X)
    content = bytearray((tmp_path / "packed.npz").read_bytes())
    content[600] ^= 255
    (tmp_path / "packed.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"is not an \.npz file of arrays"):
        calibration.read(str(tmp_path / "packed.npz"), model())


@pytest.mark.usefixtures("tiny")
def test_no_room_for_temporary_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources(tmp_path)

    class Full:
        def fileno(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        write = flush = fileno

    monkeypatch.setattr(stored_rows, "temporary_file", Full)
    for name in ("many", "whole.npy", "packed.npz"):
        with pytest.raises(RunError, match="disk full while the data was read") as failed:
            calibration.read(source[name], model())
        assert "TMPDIR" in failed.value.hint
    monkeypatch.setattr(stored_rows.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UsageError, match="GiB when unpacked"):
        calibration.read(source["packed.npz"], model())


@pytest.mark.parametrize("held", [0, 10_000])
def test_rows_that_grow(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    allowance = Allowance(held)
    rows, other = StoredRows(allowance), StoredRows(allowance)
    given = [RNG.standard_normal((n, 2)) for n in (3, 1, 7, 100)]
    for number, part in enumerate(given, 1):
        rows.append(part)
        other.append(part[:1])
        assert np.array_equal(rows.array(), np.concatenate(given[:number]))
    assert is_mapped(rows.array()) == is_mapped(other.array()) == (held == 0)
    assert np.array_equal(other.array(), np.stack([part[0] for part in given]))


def test_computed_rows() -> None:
    places = RNG.permutation(41)[:30]
    found = computed(X, lambda rows: rows * 2, places, Allowance())
    assert np.array_equal(found, X[places] * 2)
    assert np.array_equal(computed(np.float32(3).reshape(()), lambda x: x + 1, None, Allowance()), 4)
    assert computed(X[:0], lambda rows: rows, None, Allowance()).shape == (0, 3, 5)
