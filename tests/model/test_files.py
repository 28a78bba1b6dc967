"""Files, streams and objects that models come from and go to."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError, RunError, UsageError
from onnxprune.model import Model, load, save, to_graph, to_proto
from tests.model.test_model import compare, make_rich, make_small, small

__all__ = ["small"]  # the fixtures


def test_every_source_gives_the_same_model(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    sources = [
        small,
        str(small),
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        "-",
        onnx.load(small),
    ]
    models = [load(source) for source in sources]
    assert all(model.proto == onnx.load(small) for model in models)
    assert len({model.digest for model in models}) == 1
    assert [model.path for model in models] == [small, small, *[None] * 6]
    assert load(models[0]) is models[0]


def test_a_pipe_and_a_device_are_read(small: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'cat "$0" > "$1"', small, pipe]):
        assert load(pipe).proto == onnx.load(small)
    with pytest.raises(ModelError, match="is empty"):
        load("/dev/null")


def test_graphsurgeon_in_and_out(small: Path) -> None:
    gs = pytest.importorskip("onnx_graphsurgeon")
    graph = to_graph(load(small))
    assert isinstance(graph, gs.Graph)
    model = load(graph)
    assert [node.op_type for node in model.proto.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(model.array("w"), load(small).array("w"))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: .*missing.onnx"):
        load(tmp_path / "missing.onnx")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_not_a_path(path: str) -> None:
    with pytest.raises(UsageError, match="not a path"):
        load(path)


@pytest.mark.parametrize("source", [3, None, io.StringIO("text")])
def test_not_a_source(source: object) -> None:
    with pytest.raises(UsageError, match="cannot load a model from"):
        load(source)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(small: Path) -> None:
    small.chmod(0)
    with pytest.raises(UsageError, match=r"cannot read .*Permission denied"):
        load(small)


def test_an_unreadable_file_says_why(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*small\.onnx: Permission denied"):
        load(small)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (np.random.default_rng(0).bytes(5000), "is not an ONNX model"),
        (b"hello, this is text", "is not an ONNX model"),
        (make_rich().SerializeToString()[:-7], "is not an ONNX model"),
        (make_rich().SerializeToString()[:200], "is not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "it has no graph"),
        (onnx.ModelProto(graph=make_small().graph).SerializeToString(), "it has no opset_import"),
    ],
)
def test_bad_bytes(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    for source, name in ((path, "bad.onnx"), (data, "the ")):
        with pytest.raises(ModelError, match=message) as caught:
            load(source)
        assert name in caught.value.message
        assert caught.value.hint
        assert caught.value.exit_code == 3


def test_every_truncation_is_refused_cleanly() -> None:
    data = make_rich().SerializeToString()
    for size in range(0, len(data) - 1, 13):
        with pytest.raises(ModelError):
            load(data[:size])


def test_a_round_trip_is_byte_for_byte(tmp_path: Path) -> None:
    data = make_rich().SerializeToString()
    (tmp_path / "in.onnx").write_bytes(data)
    save(load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


@pytest.mark.parametrize("way", ["file", "external", "stream", "proto"])
def test_a_round_trip_field_by_field(way: str, tmp_path: Path) -> None:
    proto = make_rich()
    model, target = load(proto), tmp_path / "out.onnx"
    if way == "stream":
        stream = io.BytesIO()
        save(model, stream)
        back = onnx.load_from_string(stream.getvalue())
    elif way == "proto":
        back = to_proto(model)
        assert back is not proto
    else:
        save(model, target, external=way == "external")
        back = onnx.load(target)  # with external data read
    compare(proto, back)


def test_standard_output(small: Path) -> None:
    code = f"from onnxprune.model import load, save; save(load({str(small)!r}), '-')"
    cwd = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=cwd)
    assert done.stdout == small.read_bytes()


def test_the_input_is_never_overwritten(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    (tmp_path / "soft.onnx").symlink_to(small)
    (tmp_path / "hard.onnx").hardlink_to(small)
    (tmp_path / "sub").mkdir()
    for name in ("small.onnx", "soft.onnx", "hard.onnx", "sub/../small.onnx"):
        with pytest.raises(UsageError, match="is the input"):
            save(load(small), tmp_path / name, force=True)
    with pytest.raises(UsageError, match="is the input"):
        save(load(tmp_path / "soft.onnx"), small, force=True)
    assert small.read_bytes() == data


def test_an_existing_file_needs_force(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_text("precious")
    with pytest.raises(UsageError, match=r"out\.onnx exists") as caught:
        save(load(small), target)
    assert "--force" in caught.value.hint
    assert target.read_text() == "precious"
    save(load(small), target, force=True)
    assert target.read_bytes() == small.read_bytes()


def test_folders(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        save(load(small), tmp_path / "absent" / "out.onnx")
    with pytest.raises(UsageError, match="it is a directory"):
        save(load(small), tmp_path, force=True)
    with pytest.raises(UsageError, match="no such folder"):
        save(load(small), small / "out.onnx")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="is not writable"):
        save(load(small), tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_name_that_is_too_long(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        save(load(small), tmp_path / ("n" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_device_is_written_to_not_replaced(small: Path) -> None:
    save(load(small), "/dev/null")
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").exists():
        with pytest.raises(RunError, match="disk full while writing /dev/full"):
            save(load(small), "/dev/full")
        assert Path("/dev/full").is_char_device()


def fail_with(error: BaseException) -> Model:
    """A model whose second tensor cannot be made."""
    proto = make_rich()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 16, np.float32), "written first"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(2000, np.float32), "made"))

    def make() -> np.ndarray:
        raise error

    return Model(proto, values={"made": make})


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunError, "disk full while writing"),
        (OSError(errno.EIO, "Input/output error"), UsageError, "Input/output error"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (MemoryError(), MemoryError, ""),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_nothing_behind(
    external: bool, error: BaseException, expected: type, message: str, existing: bool, tmp_path: Path
) -> None:
    target = tmp_path / "out.onnx"
    if existing:
        target.write_text("old")
        (tmp_path / "out.onnx.data").write_text("old data")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(expected, match=message or None):
        save(fail_with(error), target, force=True, external=external)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_more_than_two_gigabytes_need_external_data(tmp_path: Path) -> None:
    proto = make_small()
    for index in range(3):
        proto.graph.initializer.append(TensorProto(name=f"huge{index}", dims=[1 << 28], data_type=TensorProto.FLOAT))

    def make() -> np.ndarray:
        raise AssertionError("refused before any work")

    model = Model(proto, values={f"huge{index}": make for index in range(3)})
    for refused in (
        lambda: to_proto(model),
        lambda: save(model, io.BytesIO()),
        lambda: save(model, tmp_path / "out.onnx", external=False),
    ):
        with pytest.raises(ModelError, match=r"2 GiB") as caught:
            refused()
        assert "external data" in caught.value.hint
    with pytest.raises(AssertionError, match="refused before"):  # by itself, to a path: external
        save(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_new_files_have_the_usual_permissions(small: Path, tmp_path: Path) -> None:
    save(load(small), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_mode == small.stat().st_mode
