"""Branches and loops: PyTorch runs them as the data says."""

from __future__ import annotations

from typing import Any

import torch

from onnxprune.errors import ModelError
from onnxprune.torch.registry import Operation, Scope, translates


@translates("If", inner=True)
def _if(operation: Operation, condition: Any, *, scope: Scope) -> list[Any]:
    return operation.bodies["then_branch" if bool(condition) else "else_branch"]([], scope)


@translates("Loop", inner=True)
def _loop(operation: Operation, limit: Any, condition: Any, *state: Any, scope: Scope) -> list[Any]:
    body, carried = operation.bodies["body"], list(state)
    going, most, step = condition is None or bool(condition), None if limit is None else int(limit), 0
    stacks: list[list[Any]] = [[] for _ in operation.outputs[len(state) :]]
    while going and (most is None or step < most):
        results = body([torch.tensor(step), torch.tensor(going), *carried], scope)
        going, carried = bool(results[0]), results[1 : 1 + len(state)]
        for stack, result in zip(stacks, results[1 + len(state) :], strict=True):
            stack.append(result)
        step += 1
    return [*carried, *(torch.stack(stack) for stack in stacks)]


@translates("Scan", inner=True)
def _scan(operation: Operation, *inputs: Any, scope: Scope) -> list[Any]:
    count = operation.attributes["num_scan_inputs"]
    if inputs[0] is None or "directions" in operation.attributes:
        raise ModelError(f"no rule says how PyTorch computes Scan of version 8 (node {operation.name!r})")
    state, scanned = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    results = len(operation.outputs) - len(state)
    in_axes, in_turned = _each(operation, "input", count)
    out_axes, out_turned = _each(operation, "output", results)
    rows = [
        list((x.flip(axis) if turned else x).unbind(axis))
        for x, axis, turned in zip(scanned, in_axes, in_turned, strict=True)
    ]
    stacks: list[list[Any]] = [[] for _ in range(results)]
    for step in zip(*rows, strict=True):
        made = operation.bodies["body"]([*state, *step], scope)
        state = made[: len(state)]
        for stack, result in zip(stacks, made[len(state) :], strict=True):
            stack.append(result)
    ends = [
        torch.stack(stack[::-1] if turned else stack, axis)
        for stack, axis, turned in zip(stacks, out_axes, out_turned, strict=True)
    ]
    return [*state, *ends]


def _each(operation: Operation, kind: str, count: int) -> tuple[list[int], list[int]]:
    """Axes and directions of what is scanned, or of what is made."""
    axes, directions = (operation.get(f"scan_{kind}_{what}") for what in ("axes", "directions"))
    return axes or [0] * count, directions or [0] * count
