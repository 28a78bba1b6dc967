"""The time that a model takes, as a function of how many units its groups lose."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use

if TYPE_CHECKING:
    from onnxprune.cost.latency.timer import Timed, Timer, alignments

__all__ = ["Timed", "Timer", "alignments"]

# Nobody measures a machine who asks for no time.
__getattr__ = on_first_use(__name__, homes_in(__name__, {"timer": ("Timed", "Timer", "alignments")}))
