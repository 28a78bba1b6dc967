"""The folder of real graphs and trained models that long tests and measurements use.

It lies beside the checkout (`../shared`), or where ONNXPRUNE_SHARED says; without it the tests that need it are
skipped. It holds `zoo/` (graphs of real exporters whose weights were emptied, and `materialise.py`, which draws
them again) and `models/` (trained models, with `manifest.json`).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import onnx

ABSENT = "no folder of shared graphs: put one beside the checkout (../shared) or name it in ONNXPRUNE_SHARED"
DTYPES = {
    "FLOAT": np.float32,
    "FLOAT16": np.float16,
    "DOUBLE": np.float64,
    "INT64": np.int64,
    "INT32": np.int32,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Entry:
    """A graph or model of the shared folder.

    Attributes:
        name: folder and file name without suffix, as in "ts/tv_resnet50" or "models/acasxu_1_1".
        path: the file.
        exporter: what wrote it.
        trained: it has its own weights; otherwise they must be drawn.
    """

    name: str
    path: Path
    exporter: str
    trained: bool


EXPORTERS = {
    "ts": "PyTorch, TorchScript",
    "dynamo": "PyTorch, dynamo",
    "tf": "tf2onnx",
    "sklearn": "skl2onnx",
    "fp16": "float16 conversion",
    "ort": "ONNX Runtime optimiser",
    "quant": "onnxruntime.quantization",
}


def folder() -> Path | None:
    """The shared folder; None where there is none."""
    given = os.environ.get("ONNXPRUNE_SHARED")
    path = Path(given) if given else Path(__file__).resolve().parents[3] / "shared"
    return path if (path / "zoo" / "materialise.py").is_file() else None


def entries(*globs: str) -> list[Entry]:
    """All graphs and models whose name matches one of `globs` (all without globs), smallest graph first."""
    root = folder()
    if root is None:
        return []
    found = [
        Entry(f"{p.parent.name}/{p.stem}", p, EXPORTERS.get(p.parent.name, p.parent.name), False)
        for p in (root / "zoo").glob("*/*.onnx")
    ]
    found.sort(key=lambda e: (e.path.stat().st_size, e.name))
    models = [
        Entry(f"models/{name}", root / "models" / f"{name}.onnx", str(about["exporter"]), True)
        for name, about in manifest().items()
    ]
    found += [m for m in models if m.path.is_file()]
    return [e for e in found if not globs or any(fnmatchcase(e.name, g) for g in globs)]


def entry(name: str) -> Entry:
    """The entry called `name`."""
    return entries(name)[0]


@functools.cache
def manifest() -> Mapping[str, Mapping[str, Any]]:
    """What is known about every trained model."""
    root = folder()
    if root is None or not (root / "models" / "manifest.json").is_file():
        return {}
    listed = json.loads((root / "models" / "manifest.json").read_text(encoding="utf-8"))
    return {about["name"]: about for about in listed["models"]}


@functools.cache
def _filler() -> ModuleType:
    root = folder()
    assert root is not None, ABSENT
    spec = importlib.util.spec_from_file_location("materialise", root / "zoo" / "materialise.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def materialised(graph: Entry) -> Iterator[Path]:
    """The path of a model file with weights; a temporary one for a graph of the zoo.

    ONNXPRUNE_ZOO_CACHE may name a folder that holds filled copies (`ts/tv_resnet50.onnx`, ...): drawing the
    weights takes longer than most of what is done with them.
    """
    if graph.trained:
        yield graph.path
        return
    cache = os.environ.get("ONNXPRUNE_ZOO_CACHE")
    if cache and (Path(cache) / f"{graph.name}.onnx").is_file():
        yield Path(cache) / f"{graph.name}.onnx"
        return
    model = _filler().materialise(str(graph.path), seed=0)
    with TemporaryDirectory(prefix="onnxprune-zoo-") as temporary:
        path = Path(temporary) / graph.path.name
        onnx.save(model, path)
        del model
        yield path


# --- inputs for the trained models ------------------------------------------------------------------------


def sample_inputs(name: str, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Inputs for the trained model `name`: real data where the folder has any that fits, else as its recipe says."""
    recipe = manifest()[name].get("test_inputs") or {}
    return [
        {tensor: _sample(spec, np.random.default_rng(1000 + k), k) for tensor, spec in recipe.items()}
        for k in range(count if recipe else 0)
    ]


def _sample(spec: Mapping[str, Any], rng: np.random.Generator, number: int) -> np.ndarray:
    shape, dtype, kind = spec["shape"], DTYPES[spec["dtype"]], spec["kind"]
    scale = spec.get("scale", 1.0)
    if kind == "const":
        return np.full(shape, spec["value"], dtype)
    if kind == "int":
        return rng.integers(spec["low"], spec["high"], shape).astype(dtype)
    if kind == "uniform":
        return (rng.random(shape) * scale).astype(dtype)
    picture = _picture(tuple(shape), number)
    if kind.startswith("image"):
        unit = rng.random(shape) if picture is None else picture
        return _normalised(unit, kind.partition(":")[2]).astype(dtype)
    if picture is not None and np.issubdtype(dtype, np.floating):
        return ((picture - 0.5) * 4 * scale).astype(dtype)
    return (rng.standard_normal(shape) * scale).astype(dtype)


def _normalised(unit: np.ndarray, kind: str) -> np.ndarray:
    if kind in ("i255", "u8"):
        return unit * 255
    return {"ipm1": unit * 2 - 1, "inorm": (unit - 0.45) / 0.225}.get(kind, unit)


@functools.cache
def _pictures() -> np.ndarray | None:
    root = folder()
    path = root / "data" / "cifar10" / "train_2000.npz" if root else None
    if path is None or not path.is_file():
        return None
    with np.load(path) as data:
        # The file is sorted by class.
        return data["x"][np.random.default_rng(1).permutation(len(data["x"]))[:64]].astype(np.float64) / 255


def _picture(shape: tuple[int, ...], number: int) -> np.ndarray | None:
    """A real photograph in [0, 1] stretched to an image-like `shape`; None for other shapes."""
    pictures = _pictures()
    if pictures is None or len(shape) != 4 or shape[0] != 1:
        return None
    first = shape[1] in (1, 3) and shape[1] <= shape[3]
    height, width, channels = (shape[2], shape[3], shape[1]) if first else shape[1:]
    if channels not in (1, 3) or min(height, width) < 8:
        return None
    photo = pictures[number % len(pictures)]
    photo = photo[np.arange(height) * len(photo) // height][:, np.arange(width) * len(photo) // width]
    photo = photo if channels == 3 else photo.mean(axis=2, keepdims=True)
    return (photo.transpose(2, 0, 1) if first else photo)[None]
