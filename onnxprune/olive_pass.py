"""A pass of Olive that prunes: `OnnxPrune` in the JSON of a workflow, with the options of `onnxprune.prune`.

Olive finds passes by a file: `python -m onnxprune.olive_pass packages.json` writes one with all of Olive's and this
one, for `olive run --config workflow.json --package-config packages.json`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

try:
    from olive.model import ONNXModelHandler
    from olive.model.utils import resolve_onnx_path
    from olive.package_config import OlivePackageConfig
    from olive.passes import Pass
    from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
    from olive.passes.pass_config import BasePassConfig, PassConfigParam
except ImportError as error:
    raise ImportError(f"onnxprune.olive_pass needs Olive: pip install 'onnxprune[olive]' ({error})") from error

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.keywords import UnitKeywords
from onnxprune.report import text

if TYPE_CHECKING:
    from olive.hardware import AcceleratorSpec

# Olive shows what its own loggers say, and warnings alone of others.
logger = logging.getLogger("olive.onnxprune")

# Parameters of `prune` that no JSON holds: the model, which Olive hands over, and objects.
OBJECTS = ("source", "train", "fine_tune", "place", "progress", "options")
# A parameter and what it means, in a docstring.
_DESCRIBED = re.compile(r"(?m)^ {4}(\w+): (.*(?:\n {8}.*)*)")


@dataclasses.dataclass(frozen=True)
class PruneParameter:
    """An option of pruning, as a workflow gives it.

    Attributes:
        name: of the option in Python.
        kind: its type.
        default: what it is where the workflow does not say.
        description: what it means.
    """

    name: str
    kind: Any
    default: Any
    description: str


def prune_parameters() -> list[PruneParameter]:
    """List the options of pruning that a JSON can hold: parameters and keyword arguments of `onnxprune.prune`.

    Returns:
        The options; what can be anything in Python is a text.
    """
    own = inspect.signature(api.prune).parameters
    kinds: dict[str, Any] = get_type_hints(api.prune, localns=dict.fromkeys(("OwnTrainer", "TrainingOptions"), Any))
    kinds = {name: kinds[name] for name in own if name not in OBJECTS} | get_type_hints(UnitKeywords)
    means = _meanings(Options.__doc__) | _meanings(api.prune.__doc__)
    defaults = {field.name: _default(field) for field in dataclasses.fields(Options)}
    defaults |= {name: own[name].default for name in own if name not in OBJECTS}
    return [PruneParameter(n, str if kinds[n] is Any else kinds[n], defaults[n], means[n]) for n in kinds]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _meanings(doc: str | None) -> dict[str, str]:
    """What a docstring says of each name."""
    cleaned = inspect.cleandoc(doc or "")
    return {name: " ".join(meaning.split()) for name, meaning in _DESCRIBED.findall(cleaned)}


class OnnxPrune(Pass):
    """Prune an ONNX model, and prove the result."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        del accelerator_spec  # what is removed does not depend on it
        options = {
            p.name: PassConfigParam(type_=p.kind, default_value=p.default, description=p.description)
            for p in prune_parameters()
        }
        return {**options, **get_external_data_config()}

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        given = config.model_dump()
        options = {p.name: given[p.name] for p in prune_parameters() if given[p.name] != p.default}
        result = api.prune(model.model_path, progress=logger.debug, **options)
        for line in text.outcome(result.report):
            logger.info("%s", line)
        for goal in result.report.goals:
            if not goal.met:
                logger.warning("the budget on %s is missed: %g of at most %g", goal.kind, goal.reached, goal.most)
        return model_proto_to_olive_model(result.model, resolve_onnx_path(output_model_path), config)


def package_config() -> dict[str, Any]:
    """Olive's own list of passes, with this one.

    Returns:
        What `olive.workflows.run` takes as `package_config`.
    """
    packages = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    everywhere = {f"supported_{kind}": ["*"] for kind in ("providers", "accelerators", "precisions")}
    entry: Mapping[str, Any] = {"module_path": f"onnxprune.olive_pass.{OnnxPrune.__name__}", **everywhere}
    return {**packages, "passes": {**packages["passes"], OnnxPrune.__name__: entry}}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m onnxprune.olive_pass PACKAGES_JSON")
    Path(sys.argv[1]).write_text(json.dumps(package_config(), indent=1) + "\n", encoding="utf-8")
