"""Whether the products of a chain take longer than the one that they stand for, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.allocation.ranks import FactorOption
from onnxprune.model import Model, load
from onnxprune.rewriting.factorise import FactorisableWeight, Factors, factorisable, with_factors
from onnxprune.runtime import paired_timing
from onnxprune.runtime.bench import Place, candidate
from onnxprune.tracing import trace

# Seconds of timed runs of either, and how often everything is opened again.
SECONDS, SESSIONS = 0.06, 3


def slower_products(
    weights: Sequence[FactorisableWeight], products: Mapping[str, FactorOption], place: Place
) -> list[str]:
    """Time every weight against its product.

    Args:
        weights: what becomes a product.
        products: name -> form and ranks.
        place: where it runs.

    Returns:
        The names of the weights whose products are slower, beyond the noise. Layers of equal sizes are timed once.
    """
    timed: dict[tuple[object, ...], bool] = {}
    slow = []
    for weight in weights:
        key = _key(weight, products[weight.name])
        if key not in timed:
            timed[key] = _is_slower(weight, products[weight.name], place)
        if timed[key]:
            slow.append(weight.name)
    return slow


def _key(weight: FactorisableWeight, product: FactorOption) -> tuple[object, ...]:
    node, shapes = weight.view.node, weight.view.static.shapes
    attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
    entering = tuple(shapes[weight.layer.input])
    return node.op_type, weight.shape, entering, product.form, product.ranks, weight.layer.weight, attributes


def _is_slower(weight: FactorisableWeight, product: FactorOption, place: Place) -> bool:
    whole = _alone(weight)
    groups = trace(whole)
    (found,) = factorisable(groups)
    rng, sizes = np.random.default_rng(0), found.kernel_sizes
    chain = [rng.standard_normal(shape) for shape in sizes.factors(product.form, product.ranks)]
    shape, dtype = weight.view.static.shapes[weight.layer.input], _dtype(weight)
    feeds = {"x": rng.standard_normal(shape).astype(dtype)}
    models = [whole, with_factors(groups, [Factors(found, product.form, chain)])]
    compared = paired_timing.compare_timings(
        [candidate(m, place.setting, feeds) for m in models], seconds=SECONDS, sessions=SESSIONS
    )
    return compared.ratio(1).low > 1


def _dtype(weight: FactorisableWeight) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(weight.view.static.dtypes[weight.name])


def _alone(weight: FactorisableWeight) -> Model:
    """A model of the one node, its weight drawn, its bias zero."""
    view, kind = weight.view, weight.view.static.dtypes[weight.name]
    node = onnx.NodeProto()
    node.CopyFrom(view.node)
    slot, rng = weight.layer.weight, np.random.default_rng(0)
    stored = [numpy_helper.from_array(rng.standard_normal(weight.shape).astype(_dtype(weight)), "w")]
    if len(node.input) > 2 and node.input[2]:
        shape = view.static.shapes[node.input[2]]
        stored.append(numpy_helper.from_array(np.zeros(shape, _dtype(weight)), "b"))
        node.input[2] = "b"
    node.input[slot], node.input[1 - slot], node.output[0] = "w", "x", "y"
    x = helper.make_tensor_value_info("x", kind, view.static.shapes[weight.layer.input])
    graph = helper.make_graph([node], "alone", [x], [helper.make_tensor_value_info("y", kind, None)], stored)
    version = helper.make_opsetid("", view.version)
    ir_version = max(8, helper.find_min_ir_version_for([version]))
    return load(helper.make_model(graph, opset_imports=[version], ir_version=ir_version))
