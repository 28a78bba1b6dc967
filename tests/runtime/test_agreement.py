"""What a tally says of outputs, against the definitions."""

import math

import numpy as np
import pytest

from onnxprune.runtime import AgreementAccumulator


def tallied(wanted, found, batch):
    tally = AgreementAccumulator()
    for start in range(0, len(wanted), batch):
        tally.add([wanted[start : start + batch]], [found[start : start + batch]])
    return tally.agreement()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_values_are_those_of_the_definitions_however_the_samples_come(batch):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 5))
    b = a + 0.5 * rng.normal(size=a.shape)
    found = tallied(a, b, batch)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (a, b))
    assert found.error == pytest.approx(np.square(a - b).sum() / np.square(a - a.mean(axis=0)).sum())
    assert found.sqnr == pytest.approx(10 * np.log10(np.square(a).sum() / np.square(a - b).sum()))
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean())
    assert found.top1 == (a.argmax(axis=1) == b.argmax(axis=1)).mean()


def test_probabilities_are_taken_as_they_are():
    rng = np.random.default_rng(1)
    p, q = (rng.dirichlet(np.ones(4), 6) for _ in range(2))
    assert tallied(p, q, 6).kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean())


def test_a_single_sample_has_a_deviation_too():
    a = np.arange(6.0).reshape(1, 6)
    assert tallied(a, a + 1, 1).error == pytest.approx(6 / np.square(a - a.mean()).sum())


def test_pictures_have_no_classes():
    a = np.ones((2, 3, 4, 4), np.float32)
    assert (tallied(a, a, 2).kl, tallied(a, a, 2).top1) == (None, None)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_as_wrong_as_can_be(broken):
    a = np.arange(8.0).reshape(2, 4)
    b = a.copy()
    b[0, 1] = broken
    found = tallied(a, b, 2)
    assert found.error > 1e20 and found.sqnr < -200 and found.cosine < 0.75
    assert all(map(math.isfinite, (found.error, found.sqnr, found.cosine, found.top1, found.kl)))


def test_what_the_original_masks_is_left_out():
    """Logarithms of zero, logits that are masked: the rest tells."""
    a = np.array([[1.0, -np.inf, 2.0], [3.0, -1.0, np.nan]])
    b = a + 0.1
    found = tallied(a, b, 2)
    numbers = a[np.isfinite(a)]
    assert found.sqnr == pytest.approx(10 * np.log10(np.square(numbers).sum() / (len(numbers) * 0.01)))
    assert 0 < found.error < 0.1 and found.top1 == 1 and found.kl == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("output", [np.arange(3), np.full((2, 3), np.nan), [np.ones(2)]], ids=["int", "nan", "list"])
def test_nothing_to_compare_is_no_agreement(output):
    tally = AgreementAccumulator()
    tally.add([output], [output])
    found = tally.agreement()
    assert all(map(math.isnan, (found.error, found.sqnr, found.cosine)))
