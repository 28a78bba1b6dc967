"""External data: read piece by piece, never trusted, written tensor by tensor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model, load, save, tensors, to_proto
from tests.model.test_model import make_rich, make_small

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model whose weight lies in `in/weights.bin`, after a gap of 8 bytes."""
    folder = tmp_path / "in"
    folder.mkdir()
    proto = make_small()
    weight = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(bytes(8) + weight.raw_data)
    refer(weight, location="weights.bin", offset=8, length=48)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def refer(tensor: TensorProto, **entries: object) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def edit(path: Path, **entries: object) -> None:
    proto = onnx.load(path, load_external_data=False)
    refer(proto.graph.initializer[0], **entries)
    path.write_bytes(proto.SerializeToString())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- reading


def test_data_stays_on_disk_until_asked_for(path: Path) -> None:
    model = load(path)
    assert model.external
    assert model.folder == path.parent
    assert not model.initializers["w"].HasField("raw_data")
    array = model.array("w")
    np.testing.assert_array_equal(array, np.arange(12, dtype=np.float32).reshape(4, 3))
    assert not array.flags.writeable
    assert model.array("w") is not array
    data = bytearray((path.parent / "weights.bin").read_bytes())
    data[8:12] = np.float32(9).tobytes()
    (path.parent / "weights.bin").write_bytes(data)
    assert model.array("w")[0, 0] == 9


@pytest.mark.parametrize("entries", [{"offset": 8}, {"offset": 8, "length": 48, "checksum": "abc"}])
def test_optional_entries(path: Path, entries: dict[str, object]) -> None:
    edit(path, location="weights.bin", **entries)
    assert load(path).array("w")[3, 2] == 11


def test_without_an_offset_data_starts_at_the_beginning(path: Path) -> None:
    edit(path, location="weights.bin")
    assert load(path).array("w")[0, 2] == 0  # the gap is two elements


@pytest.mark.parametrize("where", ["./weights.bin", "sub/weights.bin", "sub/link.bin"])
def test_places_inside_of_the_folder(path: Path, where: str) -> None:
    (path.parent / "sub").mkdir()
    shutil.copy(path.parent / "weights.bin", path.parent / "sub")
    (path.parent / "sub" / "link.bin").symlink_to("../weights.bin")
    edit(path, location=where, offset=8)
    assert load(path).array("w")[3, 2] == 11


def test_a_model_in_memory_with_its_folder(path: Path) -> None:
    model = load(path.read_bytes(), folder=path.parent)
    assert model.array("w")[3, 2] == 11
    assert model.digest == load(path).digest


@pytest.mark.parametrize("use", [lambda m: m.array("w"), to_proto, lambda m: m.digest, lambda m: save(m, os.devnull)])
def test_a_model_in_memory_without_it(path: Path, use: object) -> None:
    model = load(path.read_bytes())
    assert model.nbytes == 48
    with pytest.raises(ModelError, match=r"tensor 'w' lies in file 'weights.bin', but .* in memory") as caught:
        use(model)
    assert "folder" in caught.value.hint


# --- what is refused


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "absent.bin"}, "no such file"),
        ({"location": ""}, "is not a relative"),
        ({"offset": 0}, "is not a relative"),
        ({"location": "a\0b"}, "is not a relative"),
        ({"location": "sub\\weights.bin"}, "is not a relative"),
        ({"location": "C:weights.bin"}, "is absolute"),
        ({"location": "/etc/hostname"}, "is absolute"),
        ({"location": "../in/weights.bin"}, "leaves the model's folder"),
        ({"location": "sub/../../outside.bin"}, "leaves the model's folder"),
        ({"location": "link.bin"}, "is a link out of the model's folder"),
        ({"location": "linked/outside.bin"}, "is a link out of the model's folder"),
        ({"location": "."}, "is not a regular file"),
        ({"location": "pipe"}, "is not a regular file"),
        ({"location": "loop"}, "no such file"),
        ({"location": "weights.bin", "offset": 9}, "too short .56 bytes, needs 57"),
        ({"location": "weights.bin", "offset": 10**15}, "too short"),
        ({"location": "weights.bin", "offset": -8}, "offset -8"),
        ({"location": "weights.bin", "offset": "eight"}, "is no number"),
        ({"location": "weights.bin", "length": 44}, "length 44, but its shape .4, 3. needs 48"),
        ({"location": "weights.bin", "length": 56}, "length 56"),
    ],
)
def test_bad_references(path: Path, entries: dict[str, object], message: str) -> None:
    (path.parent.parent / "outside.bin").write_bytes(bytes(100))
    (path.parent / "link.bin").symlink_to("../outside.bin")
    (path.parent / "linked").symlink_to("..")
    (path.parent / "loop").symlink_to("loop")
    os.mkfifo(path.parent / "pipe")
    (path.parent / "sub").mkdir()
    edit(path, **entries)
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert "tensor 'w'" in caught.value.message
    with pytest.raises(ModelError, match=message):
        load(path, check=False).array("w")


def test_a_truncated_data_file(path: Path) -> None:
    data = path.parent / "weights.bin"
    model = load(path)
    data.write_bytes(data.read_bytes()[:-1])
    for use in (lambda: load(path), lambda: model.array("w"), lambda: model.digest):
        with pytest.raises(ModelError, match=r"tensor 'w'.*weights\.bin is too short \(55 bytes, needs 56"):
            use()


def test_references_in_attributes_and_branches_are_checked(path: Path) -> None:
    for index in range(2):  # a Constant; an initializer of a branch
        proto = make_rich()
        attribute = proto.graph.node[1 + index].attribute[0]
        refer(attribute.g.initializer[0] if index else attribute.t, location="../x")
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match="leaves the model's folder"):
            load(path)


# --- writing


def test_the_layout_of_the_data_file(tmp_path: Path) -> None:
    proto = make_small()
    shapes = {"a": (300,), "b": (1 << 18,), "c": (257,), "tiny": (255,), "d": (1 << 18,)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.full(shape, ord(name[0]), np.float32), name))
    save(load(proto), tmp_path / "out.onnx", external=True)
    saved = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    places = {
        t.name: {e.key: e.value for e in t.external_data} for t in saved.graph.initializer if tensors.is_external(t)
    }
    assert list(places) == ["a", "b", "c", "d"]  # the small ones stay in the model
    assert {entries["location"] for entries in places.values()} == {"out.onnx.data"}
    offsets = [int(entries["offset"]) for entries in places.values()]
    assert offsets == [0, 4096, 4096 + (1 << 20), 8192 + (1 << 20)]
    assert all(offset % 64 == 0 for offset in offsets)
    assert load(tmp_path / "out.onnx").digest == load(proto).digest
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_external_stays_external_and_is_the_same(path: Path, tmp_path: Path) -> None:
    proto = make_rich()
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(1000, dtype=ml_dtypes.bfloat16), "big"))
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(4000).astype(ml_dtypes.int4), "big4"))
    typed = helper.make_tensor("typed big", TensorProto.FLOAT16, [1024], np.linspace(0, 1, 1024))
    proto.graph.initializer.append(typed)
    save(load(proto), tmp_path / "a.onnx", external=True)
    first = load(tmp_path / "a.onnx")
    save(first, tmp_path / "b.onnx")
    second = load(tmp_path / "b.onnx")
    assert second.external
    assert (tmp_path / "b.onnx.data").read_bytes() == (tmp_path / "a.onnx.data").read_bytes()
    for name in second.initializers:
        np.testing.assert_array_equal(second.array(name), load(proto).array(name))
        assert second.array(name).dtype == load(proto).array(name).dtype
    assert load(proto).digest == first.digest == second.digest


def test_a_checksum_of_the_old_file_is_dropped_the_rest_kept(path: Path, tmp_path: Path) -> None:
    proto = onnx.load(path, load_external_data=False)
    weight = proto.graph.initializer[0]
    weight.external_data.add(key="checksum", value="0" * 40)
    weight.doc_string = "kept"
    weight.dims[:] = [400, 3]
    del weight.external_data[2:]
    (path.parent / "weights.bin").write_bytes(bytes(5000))
    path.write_bytes(proto.SerializeToString())
    save(load(path), tmp_path / "out.onnx")
    saved = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0]
    assert saved.doc_string == "kept"
    assert {e.key: e.value for e in saved.external_data} == {
        "location": "out.onnx.data",
        "offset": "0",
        "length": "4800",
    }


def test_external_data_elsewhere_in_the_model_moves_too(tmp_path: Path) -> None:
    proto = make_rich()
    branch = proto.graph.node[2].attribute[0].g.initializer[0]
    sparse = proto.graph.sparse_initializer[0].values
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d").write_bytes(branch.raw_data + sparse.raw_data)
    refer(branch, location="d", offset=0)
    refer(sparse, location="d", offset=4)
    (tmp_path / "in" / "m.onnx").write_bytes(proto.SerializeToString())
    model = load(tmp_path / "in" / "m.onnx")
    (tmp_path / "out").mkdir()
    save(model, tmp_path / "out" / "m.onnx")
    saved = load(tmp_path / "out" / "m.onnx")
    assert saved.external
    np.testing.assert_array_equal(saved.array("sparse"), [[0, 5, 0], [0, 7, 0]])
    assert saved.array(saved.proto.graph.node[2].attribute[0].g.initializer[0]) == 1
    assert to_proto(model) == to_proto(saved) == make_rich()


def test_pruned_values_of_an_external_model(path: Path, tmp_path: Path) -> None:
    proto = ModelProto()
    proto.CopyFrom(load(path).proto)
    proto.graph.initializer[0].dims[:] = [4, 300]
    original = load(path)
    pruned = replace(original, proto=proto, values={"w": lambda: np.tile(original.array("w"), 100)})
    with pytest.raises(UsageError, match="is the input"):
        save(pruned, path, force=True)
    save(pruned, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size == 4800
    np.testing.assert_array_equal(load(tmp_path / "out.onnx").array("w"), np.tile(original.array("w"), 100))
    assert load(tmp_path / "out.onnx").digest == pruned.digest


def test_the_input_s_data_is_never_overwritten(path: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    model = load(path)
    for target in (path, path.parent / "weights.bin"):
        with pytest.raises(UsageError, match="is the input"):
            save(model, target, force=True)
    (path.parent / "weights.bin").rename(path.parent / "o.onnx.data")
    edit(path, location="o.onnx.data", offset=8)
    with pytest.raises(UsageError, match=r"o\.onnx\.data is the input"):
        save(load(path), path.parent / "o.onnx", force=True)
    assert contents(tmp_path)["in/o.onnx.data"] == before["in/weights.bin"]
    assert len(contents(tmp_path)) == len(before)


def test_an_existing_data_file_needs_force(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx.data").write_text("precious")
    with pytest.raises(UsageError, match=r"out\.onnx\.data exists"):
        save(load(path), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_text() == "precious"
    assert not (tmp_path / "out.onnx").exists()


def test_a_data_file_that_shrinks_while_it_is_copied(path: Path, tmp_path: Path) -> None:
    edit(path, location="weights.bin", offset=8)
    model = load(path)
    (path.parent / "weights.bin").write_bytes(bytes(20))
    before = contents(tmp_path)
    with pytest.raises(ModelError, match="too short"):
        save(model, tmp_path / "out.onnx")
    assert contents(tmp_path) == before


def test_raw_data_that_does_not_fit_is_not_moved(tmp_path: Path) -> None:
    proto = make_small()
    proto.graph.initializer[0].raw_data = bytes(5000)
    proto.graph.initializer[0].dims[:] = [40, 30]
    with pytest.raises(ModelError, match="the data of tensor 'w' does not fit"):
        save(Model(proto), tmp_path / "out.onnx", external=True)
    assert not list(tmp_path.iterdir())


# --- memory

MEASURE = """
import resource, sys
import numpy as np
from dataclasses import replace
from onnxprune.model import load, save
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load(sys.argv[1])
model.digest
made = {"big3": lambda: model.array("big3") * 2}
save(replace(model, values=made), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    proto, largest, count = make_small(), 8 << 20, 25
    with (tmp_path / "in.data").open("wb") as file:
        for index in range(count):
            tensor = proto.graph.initializer.add(name=f"big{index}", data_type=TensorProto.FLOAT)
            tensor.dims.append(largest // 4)
            refer(tensor, location="in.data", offset=file.tell(), length=largest)
            file.write(np.full(largest // 4, index, np.float32).tobytes())
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    command = [sys.executable, "-c", MEASURE, tmp_path / "in.onnx", tmp_path / "out.onnx"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    saved = load(tmp_path / "out.onnx")
    assert saved.nbytes == count * largest + 48
    assert [saved.array(f"big{index}")[-1] for index in range(count)] == [0, 1, 2, 6, *range(4, count)]
    assert int(done.stdout) * 1024 < 5 * largest < count * largest / 4
