"""Run models and jobs: sessions, activations in graph order, paired timing, memory, workers."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use
from onnxprune.runtime.activations import MEMORY, ActivationReader, SpillBuffer
from onnxprune.runtime.agreement import Agreement, AgreementAccumulator
from onnxprune.runtime.blas import blas_threads
from onnxprune.runtime.energy import Energy, measured_energy, power_zones
from onnxprune.runtime.journal import Journal, cache_folder, key_of, said_before
from onnxprune.runtime.moments import Moments, PairMoments, WidePairMoments
from onnxprune.runtime.offline import CONSTANT_FOLDING, optimised_offline
from onnxprune.runtime.random_inputs import count_choices, random_feeds
from onnxprune.runtime.session import (
    CPU_PROVIDER,
    Deployed,
    RunMode,
    Session,
    Setting,
    provider_names,
    runtime_version,
)
from onnxprune.runtime.single_node import NodeRunner, in_single
from onnxprune.runtime.subgraph import boundary_inputs, routes_of, run_changed, run_from
from onnxprune.runtime.trial import check_run

if TYPE_CHECKING:
    from onnxprune.runtime.label_metrics import ClassTally, LabelMetric, NumberTally, label_metric

__all__ = [
    "ActivationReader",
    "Agreement",
    "AgreementAccumulator",
    "ClassTally",
    "LabelMetric",
    "NumberTally",
    "CONSTANT_FOLDING",
    "CPU_PROVIDER",
    "Deployed",
    "Energy",
    "Journal",
    "MEMORY",
    "Moments",
    "NodeRunner",
    "PairMoments",
    "RunMode",
    "Session",
    "Setting",
    "SpillBuffer",
    "cache_folder",
    "check_run",
    "WidePairMoments",
    "blas_threads",
    "count_choices",
    "boundary_inputs",
    "in_single",
    "key_of",
    "label_metric",
    "measured_energy",
    "optimised_offline",
    "power_zones",
    "provider_names",
    "random_feeds",
    "said_before",
    "run_changed",
    "run_from",
    "routes_of",
    "runtime_version",
]

# Only an evaluation counts answers.
__getattr__ = on_first_use(
    __name__, homes_in(__name__, {"label_metrics": ("ClassTally", "LabelMetric", "NumberTally", "label_metric")})
)
