"""What layers, and the products that may stand for them, take: each alone, measured in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.allocation.ranks import FactorOption, RankChoice
from onnxprune.cost import latency
from onnxprune.model import Model, load
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.progress import Progress, WorkPart
from onnxprune.rewriting.factorise import FactorisableWeight, Factors, factorisable, with_factors
from onnxprune.runtime.bench import Place, candidate
from onnxprune.runtime.paired_timing import PairedTimings, TimeRatio, compare_timings
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array, Shape

# Seconds of timed runs of each, and how often everything is opened again.
SECONDS, SESSIONS = 0.06, 3
# Products of a form that are timed for a budget on time, and how many are open at once.
STEPS, OPEN = 12, 8


@dataclass(frozen=True)
class LayerTimes:
    """What a layer and its products take.

    Attributes:
        whole: seconds of the layer as it is.
        ratios: of every product.
    """

    whole: float
    ratios: Sequence[TimeRatio]


@dataclass(eq=False)
class ProductTimer:
    """Times the layers of a model, and the products that may stand for them.

    Attributes:
        groups: the traced model.
        place: where it runs.
        progress: is told about every layer.
    """

    groups: Groups
    place: Place
    progress: Progress = lambda stage: None
    # Seconds of layers, as often as they were timed, and how their products compare, by forms and ranks.
    _known: dict[tuple[object, ...], tuple[list[float], dict[tuple[str, tuple[int, ...]], TimeRatio]]] = field(
        default_factory=dict, repr=False
    )

    @cached_property
    def model(self) -> latency.Timer:
        """Times whole models against the original."""
        return latency.Timer(self.groups.model, self.place, self.progress)

    @cached_property
    def _static(self) -> StaticInfo:
        return infer(self.groups.tracing.model, self.model.sizes)

    def slower(self, weights: Sequence[FactorisableWeight], products: Mapping[str, FactorOption]) -> list[str]:
        """The names of the weights whose products are slower, beyond the noise."""
        return [w.name for w in weights if self.layer(w, [products[w.name]]).ratios[0].low > 1]

    def timed(
        self, weights: Sequence[FactorisableWeight], choices: Sequence[RankChoice], *, allow_slower: bool
    ) -> list[RankChoice]:
        """The choices with the time of each as a cost, some products of every form.

        Args:
            weights: the layers.
            choices: what each may become.
            allow_slower: keep products that are not measured to be faster.
        """
        found = []
        for number, (weight, choice) in enumerate(zip(weights, choices, strict=True)):
            self.progress(WorkPart.of("layer", number + 1, len(weights)))
            options = _telling(choice.options)
            times = self.layer(weight, options)
            kept = [
                replace(option, costs={**option.costs, "latency": times.whole * ratio.value})
                for option, ratio in zip(options, times.ratios, strict=True)
                if allow_slower or ratio.is_faster
            ]
            whole = {**choice.whole, "latency": times.whole}
            found.append(replace(choice, whole=whole, options=kept, fixed=choice.fixed and bool(kept)))
        return found

    def layer(self, weight: FactorisableWeight, products: Sequence[FactorOption]) -> LayerTimes:
        """Time a layer, and products of it; layers of equal sizes, and products of equal ranks, are timed once."""
        node, shape = weight.view.node, self._static.shapes[weight.layer.input]
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        key = (node.op_type, weight.shape, shape, weight.layer.weight, attributes)
        seconds, known = self._known.setdefault(key, ([], {}))
        missing = [product for product in products if (product.form, product.ranks) not in known]
        for start in range(0, len(missing) or not seconds, OPEN):
            some = missing[start : start + OPEN]
            compared = self._compared(weight, shape, some)
            seconds.append(compared.typical(0))
            known.update({(p.form, p.ranks): compared.ratio(i + 1) for i, p in enumerate(some)})
        return LayerTimes(float(np.median(seconds)), [known[product.form, product.ranks] for product in products])

    def _compared(self, weight: FactorisableWeight, shape: Shape, products: Sequence[FactorOption]) -> PairedTimings:
        """A layer and products of it, in turn."""
        whole = _alone(weight, shape)
        groups = trace(whole)
        (found,) = factorisable(groups)
        feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(_dtype(weight))}
        models = [whole, *(with_factors(groups, [drawn_factors(found, product)]) for product in products)]
        candidates = [candidate(m, self.place.setting, feeds) for m in models]
        return compare_timings(candidates, seconds=SECONDS, sessions=SESSIONS)


def drawn_factors(weight: FactorisableWeight, product: FactorOption) -> Factors:
    """Factors of the sizes of a product, with numbers that keep the size of what runs through them."""
    rng = np.random.default_rng(0)
    shapes = weight.kernel_sizes.factors(product.form, product.ranks)
    chain: list[Array] = [rng.standard_normal(shape) / math.sqrt(math.prod(shape[:-1])) for shape in shapes]
    return Factors(weight, product.form, chain)


def _telling(options: Sequence[FactorOption]) -> list[FactorOption]:
    """Of every form a few products over its range, none of which loses more at no less cost than another does."""
    found: list[FactorOption] = []
    for form in dict.fromkeys(option.form for option in options):
        front, least = list[FactorOption](), math.inf
        for option in sorted((o for o in options if o.form == form), key=_work):
            if option.lost < least:
                front.append(option)
                least = option.lost
        few = {round(x) for x in np.linspace(0, len(front) - 1, min(len(front), STEPS))}
        found += [front[i] for i in sorted(few)]
    return found


def _work(option: FactorOption) -> tuple[float, float]:
    return option.costs["macs"], option.costs["params"]


def _dtype(weight: FactorisableWeight) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(weight.view.static.dtypes[weight.name])


def _alone(weight: FactorisableWeight, entering: Shape) -> Model:
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
    x = helper.make_tensor_value_info("x", kind, entering)
    graph = helper.make_graph([node], "alone", [x], [helper.make_tensor_value_info("y", kind, None)], stored)
    version = helper.make_opsetid("", view.version)
    ir_version = max(8, helper.find_min_ir_version_for([version]))
    return load(helper.make_model(graph, opset_imports=[version], ir_version=ir_version))
