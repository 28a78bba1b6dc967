"""Run models and jobs: sessions, activations in graph order, paired timing, memory, workers."""

from onnxprune.runtime.activations import MEMORY, ActivationReader, SpillBuffer
from onnxprune.runtime.agreement import Agreement, AgreementAccumulator
from onnxprune.runtime.moments import Moments, PairMoments
from onnxprune.runtime.session import Deployed, Session, Setting
from onnxprune.runtime.single_node import NodeRunner, in_single
from onnxprune.runtime.subgraph import entering, rerun, resumed, routes_of
from onnxprune.runtime.trial import check_run

__all__ = [
    "ActivationReader",
    "Agreement",
    "AgreementAccumulator",
    "Deployed",
    "NodeRunner",
    "MEMORY",
    "Moments",
    "PairMoments",
    "Session",
    "Setting",
    "SpillBuffer",
    "check_run",
    "entering",
    "in_single",
    "rerun",
    "resumed",
    "routes_of",
]
