"""Zeros chosen on the inputs that the changed model gives."""

from __future__ import annotations

import onnxprune
from tests.graphs.net import array_of
from tests.pipelines.test_sparsify import DATA, DIGITS, accuracy


def test_data_undo_the_damage_and_the_bias_follows():
    plain = onnxprune.sparsify(DIGITS, 0.9)
    fitted = onnxprune.sparsify(DIGITS, 0.9, data=DATA)
    assert accuracy(plain.model) < 0.5 and accuracy(fitted.model) > 0.93
    assert {w.method for w in fitted.report.weights} == {"alps"}
    assert all(w.refitted for w in fitted.report.weights)
    before, after = fitted.report.masked, fitted.report.judged
    assert before is not None and after is not None and after.error < 0.2 < before.error
    zeros = [{w.name: w.zeros for w in done.report.weights} for done in (plain, fitted)]
    assert zeros[0] == zeros[1]
    for name, count in zeros[0].items():
        assert (array_of(fitted.model, name) == 0).sum() == count


def test_recover_fits_the_support_of_any_mask():
    plain = onnxprune.sparsify(DIGITS, 0.8, method="wanda", data=DATA)
    fitted = onnxprune.sparsify(DIGITS, 0.8, method="wanda", data=DATA, recover=True)
    one_pass = onnxprune.sparsify(DIGITS, 0.8, method="wanda", data=DATA, recover=True, in_sequence=False)
    errors = [r.report.judged.error for r in (fitted, one_pass, plain)]
    assert errors == sorted(errors)


def test_a_model_that_was_masked_elsewhere_is_fitted_with_its_mask():
    masked = onnxprune.sparsify(DIGITS, 0.8).model
    done = onnxprune.sparsify(masked, method="threshold:0", data=DATA, recover=True)
    for name in ("fc.weight", "conv_1.weight"):
        before, after = array_of(masked, name), array_of(done.model, name)
        assert ((before == 0) == (after == 0)).all()


def test_gradients_choose_zeros_that_move_the_outputs_less_than_the_smallest_weights():
    plain = onnxprune.sparsify(DIGITS, 0.5, method="magnitude", data=DATA, samples=64)
    chosen = onnxprune.sparsify(DIGITS, 0.5, method="taylor", data=DATA, samples=64)
    fitted = onnxprune.sparsify(DIGITS, 0.5, method="taylor", data=DATA, samples=64, recover=True)
    assert {w.method for w in chosen.report.weights} == {"taylor"}
    assert chosen.report.verdict.ok and not any(w.refitted for w in chosen.report.weights)
    assert chosen.report.judged.error < 0.9 * plain.report.judged.error
    assert fitted.report.judged.error < 0.5 * chosen.report.judged.error
    assert [w.zeros for w in chosen.report.weights] == [w.zeros for w in plain.report.weights]
