"""Judge any sources of models on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxprune.model import load
from onnxprune.pipelines.evaluate import Evaluated, EvaluationData, evaluate_models
from onnxprune.pipelines.user_metric import Evaluation


def evaluate(
    models: Any,
    data: Any = None,
    *,
    labels: str | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    evaluate_with: str | Callable[[str], float] | None = None,
    **options: Any,
) -> Evaluated:
    """Judge models by labels, by a measure of one's own, and by how far they agree with the first of them.

    Args:
        models: a model (a path, bytes, a ModelProto, or what else `model.load` takes), or a list of them.
        data: inputs (see `calibration.read`), with the labels if there are any.
        labels: name of the labels in the data, "folder" for the folders that pictures lie in, or FILE.csv:COLUMN.
        shapes: of inputs, as for `prune`.
        evaluate_with: a measure of one's own: `module:function`, a command with `{model}` in it, or a function of a
            path.
        options: the other fields of `EvaluationData`: metrics (accuracy, topN, f1, iou, auc, mae, rmse, r2; those that
            suit the output if not given), output (that labels belong to), samples, sizes.

    Returns:
        Scores of every model, in their order.

    Raises:
        UsageError: an option is wrong, or data, labels or models do not fit together.
        RunError: a model does not run, or the user's own measure fails.

    Example:
        >>> import onnxprune
        >>> small = onnxprune.prune("models/digits.onnx", 0.5, data="models/digits_calibration.npz").model
        >>> found = onnxprune.evaluate(["models/digits.onnx", small], "models/digits_test.npz", labels="label")
        >>> [round(model.metrics["accuracy"], 2) for model in found.models]
        [0.99, 0.99]
    """
    given = models if isinstance(models, list | tuple) else [models]
    own = None if evaluate_with is None else Evaluation(evaluate_with)
    wanted = EvaluationData(data, labels, evaluation=own, **options)
    return evaluate_models([load(source, shapes=shapes) for source in given], wanted)
