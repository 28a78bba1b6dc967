"""Forms of products: what a chain of factors computes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxprune.layers.factor_forms import SIDES, Directions, KernelSizes
from onnxprune.names import FACTOR_FORMS
from onnxprune.typing import Array

RNG = np.random.default_rng(0)


def composed(chain: list[Array]) -> Array:
    """The weight [inputs, *kernel, outputs] of convolutions one behind the other, each axis in one of them only."""
    whole = chain[0]
    for part in chain[1:]:
        kernel = [max(a, b) for a, b in zip(whole.shape[1:-1], part.shape[1:-1], strict=True)]
        left = np.broadcast_to(whole, (whole.shape[0], *kernel, whole.shape[-1]))
        right = np.broadcast_to(part, (part.shape[0], *kernel, part.shape[-1]))
        whole = np.einsum("c...r,r...o->c...o", left, right)
    return whole


def directions(sizes: KernelSizes, form: str, ranks: tuple[int, ...]) -> Directions:
    bases, left = [], list(ranks)
    for size, is_there in zip((sizes.head(form), sizes.outputs), SIDES[form], strict=True):
        bases.append(np.linalg.qr(RNG.standard_normal((size, left.pop(0))))[0] if is_there else None)
    return Directions(form, *bases)


@pytest.mark.parametrize("form", FACTOR_FORMS)
@pytest.mark.parametrize("kernel", [(3, 2), (3, 1, 2)])
def test_a_chain_computes_the_product(form, kernel):
    sizes = KernelSizes(4, kernel, 5)
    found = directions(sizes, form, (3, 2)[: sum(SIDES[form])])
    weight = RNG.standard_normal((4 * math.prod(kernel), 5))
    rest = found.entered(weight)
    chain = found.chain(rest, sizes)
    assert [part.shape for part in chain] == sizes.factors(form, found.ranks)
    product = found.product(rest)
    np.testing.assert_allclose(composed(chain).reshape(product.shape), product, atol=1e-12)
    np.testing.assert_allclose(found.product(found.entered(product)), product, atol=1e-12)


@pytest.mark.parametrize("form", ["spatial", "tucker"])
def test_moments_of_what_enters(form):
    sizes = KernelSizes(4, (3, 2), 5)
    found = directions(sizes, form, (3, 2)[: sum(SIDES[form])])
    assert found.entering is not None
    rows = RNG.standard_normal((50, 24))
    head = sizes.head(form)
    entered = np.einsum("nhp,hr->nrp", rows.reshape(50, head, -1), found.entering).reshape(50, -1)
    np.testing.assert_allclose(found.entered_moment(rows.T @ rows), entered.T @ entered, atol=1e-10)
    weight = RNG.standard_normal((24, 5))
    np.testing.assert_allclose(
        found.entered(weight), np.einsum("hpo,hr->rpo", weight.reshape(head, -1, 5), found.entering).reshape(-1, 5)
    )


def test_which_forms_differ():
    assert KernelSizes(8, (), 8).forms() == ["channel"]
    assert KernelSizes(8, (1, 1), 8).forms() == ["channel"]
    assert KernelSizes(8, (3,), 8).forms() == ["channel", "tucker"]
    assert KernelSizes(1, (10, 4), 8).forms() == ["channel", "spatial"]
    assert KernelSizes(8, (3, 3), 8).forms() == list(FACTOR_FORMS)


def test_directions_of_other_sizes_do_not_fit():
    sizes = KernelSizes(4, (3, 2), 5)
    assert directions(sizes, "tucker", (3, 2)).fits(sizes)
    assert not directions(sizes, "tucker", (3, 2)).fits(KernelSizes(5, (3, 2), 5))
    assert not directions(sizes, "spatial", (3,)).fits(KernelSizes(4, (2, 3), 5))
    assert not directions(sizes, "tucker", (3, 2)).fits(KernelSizes(4, (), 5))
