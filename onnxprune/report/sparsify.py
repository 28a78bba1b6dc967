"""What setting elements to zero gave, as text and as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data as plain
from onnxprune.report import numbers, text
from onnxprune.report.training import training_data, training_entries

if TYPE_CHECKING:
    from onnxprune.pipelines.sparsified import SparseWeight, Sparsified
    from onnxprune.pipelines.unit_order import Ordered
    from onnxprune.rewriting import Plan
    from onnxprune.runtime import Agreement
    from onnxprune.sparsity import Eligible, Speed

# Weights and layers that the short account names.
MOST = 3
ADVICE = (
    "zeros make a file smaller once it is compressed or stored sparse, and hardly any runtime faster; `onnxprune prune`"
    " removes channels"
)


def sparsify_lines(done: Sparsified, *, nonzeros: tuple[int, int]) -> list[str]:
    """The account of one run.

    Args:
        done: what was done.
        nonzeros: elements that are not zero of all its weights, before, and as the file that was written holds them.

    Returns:
        Lines of text.
    """
    elements = sum(w.elements for w in done.weights)
    zeros = sum(w.zeros for w in done.weights)
    rows = [
        ("non-zeros", numbers.count(nonzeros[0]), numbers.count(nonzeros[1]), numbers.change(*nonzeros)),
        ("file", *map(numbers.bytes_text, done.sizes), numbers.change(*done.sizes)),
    ]
    lines = text.table(("", "before", "after", "change"), rows, ("before", "after", "change"))
    share = numbers.percent(zeros, elements)
    many = numbers.plural(len(done.weights), "weight")
    options = done.plan.options
    lines += ["", text.entry("zeros", f"{share} of {many}, {done.plan.zeros[0].pattern}, by {_methods(done)}")]
    lines += _order_lines(done.order)
    sparse = sum(w.stored == "sparse" for w in done.weights)
    if options["storage"] != "dense":
        lines.append(
            text.entry("stored", f"{sparse} of {many} sparse" if sparse else "dense: sparse is no smaller here")
        )
    if done.verdict is not None:
        lines.append(text.entry("proof", text.proof(done.verdict)))
    lines += _fit_lines(done)
    lines += [text.entry(*said) for said in training_entries(done.training)]
    lines += [text.entry("speed", speed_text(done.speed))] if done.speed is not None else []
    lines += _eligible_lines(done.eligible)
    for name, why in list(done.left.items())[:MOST]:
        lines.append(text.entry("dense", f"{name!r} stays as it is: {why}"))
    return lines


def _order_lines(order: Ordered | None) -> list[str]:
    """What another order of units keeps; nothing where none was looked for."""
    if order is None:
        return []
    if not order.steps:
        return [text.entry("order", "as before: no channels that could change places keep more")]
    shares = f"{order.before:.1%} -> {order.after:.1%}"
    return [text.entry("order", f"{numbers.plural(len(order.steps), 'group')} of channels: squares kept {shares}")]


def reorder_lines(plan: Plan) -> list[str]:
    """How many groups a plan puts into another order; nothing where it does not."""
    if not plan.reorders:
        return []
    groups = numbers.plural(len(plan.reorders), "group")
    return [text.entry("order", f"{groups} of channels change places, proven to change no output")]


def zeros_lines(plan: Plan) -> list[str]:
    """How many elements a plan sets to zero; nothing where it sets none."""
    if not plan.zeros:
        return []
    zeros = sum(int(step.keep.size - step.keep.sum()) for step in plan.zeros)
    share = numbers.percent(zeros, sum(step.keep.size for step in plan.zeros))
    return [text.entry("zeros", f"{share} of {numbers.plural(len(plan.zeros), 'weight')}")]


def _methods(done: Sparsified) -> str:
    """The methods, the most used first."""
    names = [w.method for w in done.weights]
    return " and ".join(sorted(set(names), key=lambda name: -names.count(name)))


def _fit_lines(done: Sparsified) -> list[str]:
    if done.judged is None:
        return []
    fitted = sum(w.refitted for w in done.weights)
    if done.masked is None or not fitted:
        return [text.entry("outputs", f"{agreement_text(done.judged)} on held-out samples")]
    before, after = agreement_text(done.masked), agreement_text(done.judged)
    how = "re-fitted" if done.training is None else "re-fitted and trained"
    return [text.entry("re-fit", f"{fitted} of {len(done.weights)} weights; {before} with zeros alone, {after} {how}")]


def agreement_text(of: Agreement) -> str:
    """How outputs agree, in a few words."""
    if not of.is_known:
        return "no output that can be compared"
    same = "" if of.top1 is None else f", same class {of.top1:.0%}"
    return f"{of.sqnr:.1f} dB{same}"


def speed_text(of: Speed) -> str:
    """The time of a run before and after, and what that means."""
    threads = numbers.plural(of.place.setting.threads, "thread") if of.place.setting.threads else "all cores"
    provider = of.place.setting.provider.removesuffix("ExecutionProvider")
    change = f"{numbers.duration(of.before)} -> {numbers.duration(of.after)}"
    said = "faster" if of.is_faster else "SLOWER" if of.is_slower else "no faster"
    compared = text.ratio(of.ratio) if of.ratio.is_noise else f"ratio {text.ratio(of.ratio)}"
    return f"{said}: {change}, {compared}, with ONNX Runtime {provider}, {threads}"


def _eligible_lines(layers: Sequence[Eligible]) -> list[str]:
    """What TensorRT may do with 2:4, and what stands against it."""
    if not layers:
        return []
    good = [layer.node for layer in layers if not layer.problem]
    names = f" ({', '.join(good[:MOST])}{', ...' if len(good) > MOST else ''})" if good else ""
    lines = [text.entry("TensorRT", f"{len(good)} of {len(layers)} layers are of a kind that has 2:4 kernels{names}")]
    for layer in [layer for layer in layers if layer.problem][:MOST]:
        lines.append(text.entry("", f"not {layer.node}: {layer.problem}"))
    return lines


def sparsify_data(done: Sparsified, *, nonzeros: tuple[int, int]) -> dict[str, Any]:
    """The account of one run as plain data.

    Args:
        done: what was done.
        nonzeros: elements that are not zero, before, and as the file that was written holds them.

    Returns:
        What `--json` prints.
    """
    return {
        "options": dict(done.plan.options),
        "before": {"nonzeros": nonzeros[0], "bytes": done.sizes[0]},
        "after": {"nonzeros": nonzeros[1], "bytes": done.sizes[1]},
        "weights": [_weight(w) for w in done.weights],
        "left": [{"tensor": name, "why": why} for name, why in done.left.items()],
        "proof": None if done.verdict is None else plain.verdict(done.verdict),
        "masked": agreement_data(done.masked),
        "outputs": agreement_data(done.judged),
        "damage": plain.ruin(done.judged),
        "training": None if done.training is None else training_data(done.training),
        "speed": None if done.speed is None else speed_data(done.speed),
        "order": None if done.order is None else order_data(done.order),
        "tensorrt": [asdict(layer) for layer in done.eligible],
        "seconds": {stage: round(value, 4) for stage, value in done.seconds.items()},
    }


def _weight(of: SparseWeight) -> dict[str, Any]:
    return asdict(of) | {"shape": list(of.shape), "elements": of.elements}


def agreement_data(of: Agreement | None) -> dict[str, Any] | None:
    """How outputs agree, as plain data; None where nothing is known."""
    if of is None or not of.is_known:
        return None
    found = asdict(of)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}


def order_data(of: Ordered) -> dict[str, Any]:
    """What another order of units keeps, as plain data."""
    return {"groups": [step.group for step in of.steps], "kept_before": of.before, "kept_after": of.after}


def speed_data(of: Speed) -> dict[str, Any]:
    """The time of a run before and after, as plain data."""
    return {
        "before": of.before,
        "after": of.after,
        "ratio": asdict(of.ratio),
        "faster": of.is_faster,
    }
