"""Principal components of what linear groups hold, against those of activations that are computed by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.model import load
from onnxprune.pipelines.principal_axes import principal_axes, unit_reads_of
from onnxprune.rewriting import rotatable_groups
from onnxprune.tracing import trace
from tests.graphs.linear import SIZE, attention, bottleneck
from tests.graphs.net import run


def tapped(proto: onnx.ModelProto, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = run(shown, feeds=feeds)
    return [np.asarray(found[name], np.float64) for name in names]


def largest_first(moment: np.ndarray) -> np.ndarray:
    return np.linalg.eigh(moment)[1][:, ::-1]


def test_all_that_read_a_stream_count_alike() -> None:
    proto = bottleneck()
    groups = trace(load(proto))
    stream = rotatable_groups(groups)["stem"]
    read = [r.tensor for r in unit_reads_of(groups, stream)]
    assert len(read) == 3
    feeds = {"x": np.random.default_rng(0).standard_normal((16, 3, SIZE, SIZE)).astype(np.float32)}
    sums = np.zeros((stream.units, stream.units))
    for value in tapped(proto, read, feeds):
        rows = np.moveaxis(value, 1, -1).reshape(-1, stream.units) if value.ndim == 4 else value
        sums += rows.T @ rows / np.square(rows).sum()
    halves = [{"x": feeds["x"][:8]}, {"x": feeds["x"][8:]}]
    step = principal_axes(groups, [stream], halves)["stem"]
    (found,) = step.bases
    np.testing.assert_allclose(np.abs(found.T @ largest_first(sums)), np.eye(stream.units), atol=1e-3)
    assert (np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0) > 0).all()


def test_every_head_has_components_of_its_own() -> None:
    proto = attention()
    groups = trace(load(proto), head_dims=True)
    chosen = rotatable_groups(groups)["value"]
    feeds = {"x": np.random.default_rng(0).standard_normal((64, 5, 8)).astype(np.float32)}
    (name,) = [r.tensor for r in unit_reads_of(groups, chosen)]
    (value,) = tapped(proto, [name], feeds)
    step = principal_axes(groups, [chosen], [feeds])["value"]
    for found, own in zip(step.bases, np.split(value.reshape(-1, 8), 2, axis=1), strict=True):
        np.testing.assert_allclose(np.abs(found.T @ largest_first(own.T @ own)), np.eye(4), atol=1e-3)


def test_a_group_whose_values_are_no_numbers_has_none() -> None:
    proto = bottleneck()
    for tensor in proto.graph.initializer:
        if tensor.name == "stem":
            value = np.full(numpy_helper.to_array(tensor).shape, np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, "stem"))
    groups = trace(load(proto))
    feeds = {"x": np.ones((4, 3, SIZE, SIZE), np.float32)}
    assert principal_axes(groups, [rotatable_groups(groups)["stem"]], [feeds]) == {}
