"""Norms whose channels get back the deviation and mean that they had in the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.layers import NORMS, Parameters
from onnxprune.recovery import fits
from onnxprune.recovery.targets import LayerFit, MatrixTarget
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments, run_from
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class NormTarget(MatrixTarget):
    """A norm: every channel is a layer of one input, which gets back the deviation and mean that it had."""

    @property
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """The output of the original's norm; the input of the pruned one, which runs when those before are fitted."""
        return [self.view.node.output[0]], [self.node.input[0]]

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """Scale and bias, as factors of and additions to what they are."""
        own, shape = parameters.scale_and_bias(self.node), self.view.out_shape()
        assert own is not None
        axis = NORMS[self.view.node.op_type].axis % len(shape)
        kept = removal.kept(removal.groups.tracing.axes[self.view.node.output[0]][axis], axis, shape[axis])
        ones = np.ones((int(kept.sum()), 1, 1))
        return _NormFit(
            method=method,
            parameters=parameters,
            sliced=ones,
            full=ones,
            shifted=bool(own[1]),
            node=self.node,
            own=own,
            axis=axis,
            kept=kept,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _NormFit(LayerFit):
    """The scale and bias of a norm.

    Attributes:
        node: the norm in the pruned model.
        own: names of its scale and bias; the latter is empty where there is none.
        axis: the axis of the channels.
        kept: the channels that remain of the original's.
    """

    node: onnx.NodeProto
    own: tuple[str, str]
    axis: int
    kept: Array

    def rows(self, olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
        """Outputs of the pruned norm and of the original's at drawn positions, channel by channel."""
        ((output,),) = run_from(self.parameters.model, [{self.node.input[0]: news[0]}], [self.node.output[0]])
        places = rng.permutation(olds[0].size // len(self.kept))[:most]
        wanted = _by_channel(olds[0], self.axis)[self.kept]
        return fits.Rows(_by_channel(output, self.axis)[:, places], wanted[:, places])

    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Multiply the scale, and multiply and shift the bias."""
        scale, shift = fitted[0].reshape(-1), fitted[1].reshape(-1)
        self.parameters.store(self.own[0], self.parameters.value(self.own[0]) * scale)
        if self.own[1]:
            self.parameters.store(self.own[1], self.parameters.value(self.own[1]) * scale + shift)


def _by_channel(value: Array, axis: int) -> Array:
    """[channels, positions, 1]."""
    return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1, 1).astype(np.float32)
