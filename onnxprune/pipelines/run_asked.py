"""Pruning as the options say; who drops no block waits for none of what drops them."""

from __future__ import annotations

from typing import Any

from onnxprune.allocation import Options
from onnxprune.model import Model
from onnxprune.pipelines import prune
from onnxprune.pipelines.prune import Outcome


def run_asked(model: Model, options: Options, **given: Any) -> Outcome:
    """Prune units alone, or blocks and units.

    Args:
        model: the model.
        options: what to prune.
        given: the other arguments of `prune.run`.

    Returns:
        Everything that pruning gave.
    """
    if not options.drop:
        return prune.run(model, options, **given)
    from onnxprune.pipelines.prune_drop import run_with_drop

    return run_with_drop(model, options, **given)
