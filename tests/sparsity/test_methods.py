"""Methods that choose zeros, against their formulas and against the best there is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.sparsity import METHODS, LayerEvidence, method_of, pattern_of, refitted

INPUTS, OUTPUTS, ROWS = 12, 7, 400


def evidence_of(
    pattern: str = "unstructured", share: float = 0.5, *, moved: float = 0.0, seed: int = 0
) -> LayerEvidence:
    """A layer with correlated inputs; `moved` is how far they are from those of the original."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, INPUTS)) @ rng.standard_normal((INPUTS, INPUTS)) * np.geomspace(0.3, 3, INPUTS)
    weight = rng.standard_normal((INPUTS, OUTPUTS))
    seen = x + moved * rng.standard_normal(x.shape)
    second, cross = (seen.T @ v / ROWS for v in (seen, x @ weight))
    return LayerEvidence(
        weight[None], pattern_of(pattern), share, INPUTS, rng=rng, second=second[None], cross=cross[None]
    )


def error_of(evidence: LayerEvidence, weight) -> float:
    """What the ridge regression of every output leaves, without what does not depend on the weights."""
    return float((weight * (evidence.hessian @ weight)).sum() - 2 * (weight * evidence.aim).sum())


CHOSEN = [name for name in METHODS if name != "threshold"]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block 2x3"])
@pytest.mark.parametrize("name", CHOSEN)
def test_zeros_have_the_pattern(name, pattern):
    evidence = evidence_of(pattern)
    weight, keep = METHODS[name].make(evidence)
    assert weight.shape == keep.shape == evidence.weight.shape
    assert (weight[~keep] == 0).all() and np.isfinite(weight).all()
    assert keep.mean() == pytest.approx(0.5)
    if pattern == "unstructured":
        assert (keep.sum(axis=1) == INPUTS // 2).all(), "every output keeps as many"
    if not METHODS[name].refits:
        assert (weight[keep] == evidence.weight[keep]).all()


@pytest.mark.parametrize("name", CHOSEN)
def test_a_zero_stays_a_zero(name):
    evidence = evidence_of(share=0.25)
    evidence.weight[0, :6, 2] = 0
    weight, keep = METHODS[name].make(evidence)
    assert not keep[0, :6, 2].any() and (weight[0, :6, 2] == 0).all()


def test_scores_are_their_formulas():
    evidence = evidence_of()
    size, norm = np.abs(evidence.weight), np.sqrt(np.diagonal(evidence.hessian[0]))[None, :, None]
    formulas = {
        "magnitude": size,
        "wanda": size * norm,
        "ria": (size / size.sum(axis=1, keepdims=True) + size / size.sum(axis=2, keepdims=True)) * np.sqrt(norm),
    }
    for name, scores in formulas.items():
        (_, keep), order = METHODS[name].make(evidence), np.argsort(scores, axis=1)
        expected = np.ones_like(keep)
        np.put_along_axis(expected, order[:, : INPUTS // 2], False, axis=1)
        assert (keep == expected).all(), name


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_the_refit_is_the_best_of_its_support(moved):
    evidence = evidence_of(moved=moved)
    weight, keep = METHODS["wanda"].make(evidence)
    found = refitted(evidence, weight, keep)
    for output in range(OUTPUTS):
        support = np.flatnonzero(keep[0, :, output])
        best = np.linalg.solve(evidence.hessian[0][np.ix_(support, support)], evidence.aim[0, support, output])
        assert np.allclose(found[0, support, output], best, rtol=1e-3, atol=1e-4)
    assert (found[~keep] == 0).all()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_better_methods_are_better(pattern, moved):
    """Summed over layers: ALPS before SparseGPT before Wanda before magnitude before chance."""
    names, totals = ("alps", "sparsegpt", "wanda", "magnitude", "random"), []
    for name in names:
        errors = []
        for seed in range(6):
            evidence = evidence_of(pattern, moved=moved, seed=seed)
            dense = error_of(evidence, evidence.dense)
            errors.append(error_of(evidence, METHODS[name].make(evidence)[0]) - dense)
        assert min(errors) >= 0
        totals.append(sum(errors))
    assert totals == sorted(totals), dict(zip(names, totals, strict=True))


def test_alps_comes_close_to_the_best_mask():
    """Of one output with eight inputs, all masks can be tried."""
    ratios = []
    for seed in range(10):
        evidence = evidence_of(seed=seed)
        small = replace(
            evidence,
            weight=evidence.weight[:, :8, :1],
            second=evidence.second[:, :8, :8],
            cross=(evidence.second[:, :8, :8] @ evidence.weight[:, :8, :1]),
        )
        found = error_of(small, METHODS["alps"].make(small)[0]) - error_of(small, small.dense)
        masks = (np.isin(np.arange(8), kept)[None, :, None] for kept in itertools.combinations(range(8), 4))
        best = min(error_of(small, refitted(small, small.weight, mask)) for mask in masks)
        ratios.append(found / (best - error_of(small, small.dense)))
    assert min(ratios) > 0.999 and np.median(ratios) < 1.1, ratios


def test_threshold_is_a_number_or_a_multiple_of_the_deviation():
    evidence = evidence_of()
    size = np.abs(evidence.weight)
    assert (method_of("threshold:0.5", data=False).make(evidence)[1] == (size > 0.5)).all()
    assert (method_of("threshold:0.5std", data=False).make(evidence)[1] == (size > 0.5 * evidence.weight.std())).all()
    evidence.weight[0, 0] = 0
    assert (method_of("threshold:0", data=False).make(evidence)[1] == (evidence.weight != 0)).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wnada", "nothing is called"),
        ("threshold", "not complete"),
        ("threshold:-1", "is no threshold"),
        ("threshold:x", "is no threshold"),
        ("threshold:infstd", "is no threshold"),
        ("wanda:3", "takes no argument"),
        ("wanda", "needs inputs"),
    ],
)
def test_methods_that_cannot_work_are_refused(text, says):
    with pytest.raises(UsageError, match=says):
        method_of(text, data=False)
