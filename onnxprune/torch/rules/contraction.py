"""Products of matrices: MatMul, Gemm, Einsum, and ONNX Runtime's fused ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.model.protos import MICROSOFT
from onnxprune.torch.registry import Operation, translates
from onnxprune.torch.rules.convolution import activated


@translates("MatMul")
def _matmul(operation: Operation, a: Any, b: Any) -> Any:
    return torch.matmul(a, b)


@translates("Gemm")
def _gemm(operation: Operation, a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = operation.get("alpha", 1.0), operation.get("beta", 1.0)
    left = a.t() if operation.get("transA") else a
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1)):
        return F.linear(left, b if operation.get("transB") else b.t(), c)
    product = alpha * (left @ (b.t() if operation.get("transB") else b))
    return product if c is None else product + beta * c


@translates("Einsum")
def _einsum(operation: Operation, *inputs: Any) -> Any:
    return torch.einsum(operation.attributes["equation"].replace(" ", ""), *inputs)


@translates("Det")
def _determinant(operation: Operation, x: Any) -> Any:
    return torch.linalg.det(x)


@translates("FusedGemm", domain=MICROSOFT)
def _fused_gemm(operation: Operation, *inputs: Any) -> Any:
    parameters = [operation.get(f"activation_{key}") for key in ("alpha", "beta", "gamma")]
    given = [p for p in parameters if p is not None]
    return activated(operation, _gemm(operation, *inputs), operation.get("activation", ""), given)


@translates("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def _fused_matmul(operation: Operation, a: Any, b: Any) -> Any:
    a = a.movedim(0, -2) if operation.get("transBatchA") else a
    b = b.movedim(0, -2) if operation.get("transBatchB") else b
    a = a.mT if operation.get("transA") else a
    b = b.mT if operation.get("transB") else b
    return torch.matmul(a, b) * operation.get("alpha", 1.0)
