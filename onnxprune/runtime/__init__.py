"""Run models and jobs: sessions, activations in graph order, paired timing, memory, workers."""

from onnxprune.runtime.activations import Walk
from onnxprune.runtime.session import Deployed, Session, Setting
from onnxprune.runtime.subgraph import entering, rerun, resumed, routes_of

__all__ = ["Deployed", "Session", "Setting", "Walk", "entering", "rerun", "resumed", "routes_of"]
