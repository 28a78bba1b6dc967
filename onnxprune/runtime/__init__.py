"""Run models and jobs: sessions, activations in graph order, paired timing, memory, workers."""

from onnxprune.runtime.activations import Walk
from onnxprune.runtime.session import Deployed, Session, Setting

__all__ = ["Deployed", "Session", "Setting", "Walk"]
