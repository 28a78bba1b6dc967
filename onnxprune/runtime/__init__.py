"""Run models and jobs: sessions, activations in graph order, paired timing, memory, workers."""

from onnxprune.runtime.activations import ActivationReader
from onnxprune.runtime.session import Deployed, Session, Setting
from onnxprune.runtime.subgraph import entering, rerun, resumed, routes_of
from onnxprune.runtime.trial import check_run

__all__ = [
    "Deployed",
    "Session",
    "Setting",
    "ActivationReader",
    "check_run",
    "entering",
    "rerun",
    "resumed",
    "routes_of",
]
