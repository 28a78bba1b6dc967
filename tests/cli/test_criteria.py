"""`criteria`: what makes a unit important."""

from __future__ import annotations


def test_criteria(run):
    shown = run("criteria").out
    assert "wanda" in shown and "ensemble:l2,wanda" in shown
    found = {c["name"]: c for c in run("criteria", "--json").json["criteria"]}
    assert found["l2"]["aggregate"] == "norm" and found["apoz"]["needs_data"] and found["fpgm"]["source"]
