"""What quantising a model gave, as text and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.report import data, numbers
from onnxprune.report.sparsify import agreement_data, agreement_text, speed_data, speed_text
from onnxprune.report.text import entry, table

if TYPE_CHECKING:
    from onnxprune.pipelines.quantized import Quantized, TriedShare

# Layers in float that the account names.
MOST = 4
_FORMS = {
    "qdq": "with quantisers around float nodes",
    "operators": "in operators of whole numbers",
    "dynamic": "with activations quantised by their own ranges",
    "blocks": "weights alone, in blocks",
}


def quantize_lines(of: Quantized) -> list[str]:
    """Write the account of one run.

    Args:
        of: what was done.

    Returns:
        Lines of text.
    """
    sizes = ("file", *map(numbers.bytes_text, of.sizes), numbers.change(*of.sizes))
    lines = [*table(("", "before", "after", "change"), [sizes], ("before", "after", "change")), ""]
    total = len(of.layers) + len(of.floats)
    lines.append(entry("layers", f"{len(of.layers)} of {total} quantised, {_FORMS[of.form]}"))
    lines += [entry("float", line) for line in _floats(of)]
    lines += [entry("within", line) for line in _tried(of)]
    if of.fit is not None:
        better = sum(fit.kept for fit in of.fit.fits)
        chosen = f"chosen by what they make of the data, in {better} of {numbers.plural(len(of.fit.fits), 'layer')}"
        lines.append(entry("numbers", chosen if of.fit.kept else "the nearest: others were no better when held out"))
    if of.judged is not None and of.nearest is not None:
        before = f"{agreement_text(of.nearest)} by the nearest numbers -> " if of.fit is not None else ""
        lines.append(entry("outputs", f"{before}{agreement_text(of.judged)}, on held-out samples"))
    if of.saturates and of.deployed is not None:
        lines.append(entry("", f"but {agreement_text(of.deployed)} by this machine's kernels, whose sums saturate"))
    if of.values is not None:
        lines.append(entry("value", f"{of.values[0]:g} -> {of.values[1]:g}"))
    return lines + ([entry("speed", speed_text(of.speed))] if of.speed is not None else [])


def _floats(of: Quantized) -> list[str]:
    """The layers that stay in float, by the reason."""
    found: dict[str, list[str]] = {}
    for name, why in of.floats.items():
        found.setdefault(why, []).append(name)
    return [
        f"{', '.join(names[:MOST])}{f' and {len(names) - MOST} more' if len(names) > MOST else ''}: {why}"
        for why, names in found.items()
    ]


def _tried(of: Quantized) -> list[str]:
    """What was tried within a budget; the model that is best comes first."""
    best = (of.share, len(of.floats))
    others = [tried for tried in of.tried if (tried.share, tried.floats) != best]
    chosen = [tried for tried in of.tried if tried not in others]
    return [*map(_trial, chosen), *(f"not as good: {_trial(tried)}" for tried in others)]


def _trial(tried: TriedShare) -> str:
    time = "" if tried.speed is None else f", {tried.speed.ratio.value:.1%} of the time"
    value = "" if tried.value is None else f", value {tried.value:g}"
    floats = f"{numbers.plural(tried.floats, 'layer')} in float, " if tried.floats else ""
    return (
        f"{tried.share:.1%} of the parameters, {floats}{numbers.plural(tried.narrow, 'layer')} of 4 bits, "
        f"{numbers.bytes_text(tried.bytes)}{time}: {agreement_text(tried.outputs)}{value}"
    )


def quantize_data(of: Quantized) -> dict[str, Any]:
    """Write the same as plain data.

    Args:
        of: what was done.

    Returns:
        What `--json` prints.
    """
    return {
        "bytes": {"before": of.sizes[0], "after": of.sizes[1]},
        "form": of.form,
        "quantised": _layers(of),
        "narrow": list(of.narrow),
        "share": of.share,
        "tried": [
            {
                "share": t.share,
                "narrow": t.narrow,
                "floats": t.floats,
                "speed": None if t.speed is None else speed_data(t.speed),
                "bytes": t.bytes,
                "value": t.value,
                "outputs": agreement_data(t.outputs),
            }
            for t in of.tried
        ],
        "fit": None if of.fit is None else data.recovery_json(of.fit),
        "nearest": agreement_data(of.nearest),
        "outputs": agreement_data(of.judged),
        "deployed": agreement_data(of.deployed),
        "damage": data.ruin(of.judged),
        "values": None if of.values is None else list(of.values),
        "speed": None if of.speed is None else speed_data(of.speed),
        "seconds": {stage: round(value, 4) for stage, value in of.seconds.items()},
    }


def _layers(of: Quantized) -> list[dict[str, Any]]:
    """Every layer: whether it is quantised, why not, and the error of its outputs by the nearest numbers and after."""
    fits = {} if of.fit is None else {fit.node: fit for fit in of.fit.fits}
    found = [{"name": name, "quantised": True, "why": ""} for name in of.layers]
    found += [{"name": name, "quantised": False, "why": why} for name, why in of.floats.items()]
    for layer in found:
        fit = fits.get(str(layer["name"]))
        layer |= {"before": None, "after": None} if fit is None else {"before": fit.before, "after": fit.after}
    return found
