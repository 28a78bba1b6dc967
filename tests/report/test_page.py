"""The page of a result, read as a browser reads it; `test_page_in_browser.py` opens it in one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from onnxprune.errors import UsageError
from onnxprune.report.page import PageContent, check_templates, page
from tests.report.documents import BENCHED, inspected, measured, pruned, searched

VOID = {"meta", "link", "br", "input", "path", "polyline"}
ABOUT = {
    "command": "onnxprune prune 'a b.onnx'",
    "made": "2020-01-01T00:00:00+00:00",
    "versions": {"onnx": "1.0"},
    "files": [{"role": "model", "path": "a b.onnx", "bytes": 1234, "sha256": "f00d"}],
}


class Parsed(HTMLParser):
    """Elements with their attributes and text; tags that are not closed in their order are told."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def json(self, name):
        scripts = [attrs for tag, attrs in self.elements if tag == "script"]
        return json.loads(self.texts["script"][[s.get("id") for s in scripts].index(name)])


def content(name: str) -> PageContent:
    document, difference = pruned()
    return {
        "prune": PageContent("a -> b", document, difference, ["as printed"], ABOUT),
        "search": PageContent("a -> b", searched(), difference, [], ABOUT, ["cmd one", "cmd two", "cmd three"]),
        "sensitivity": PageContent("s", measured(), {}, ["x"], ABOUT),
        "bench": PageContent("t", BENCHED, {}, ["x"], ABOUT),
        "inspect": PageContent("i", inspected(), {}, ["x"], ABOUT),
        "diff": PageContent("d", difference),
        "run": PageContent("r", {"steps": [{"verb": "original"}, {"verb": "prune", "report": document}]}, difference),
        "nothing": PageContent("n", {"format": "x"}),
        "evil": PageContent(EVIL, poisoned(searched()), poisoned(difference), [EVIL], ABOUT, [EVIL] * 3),
    }[name]


NAMES = ("prune", "search", "sensitivity", "bench", "inspect", "diff", "run", "nothing", "evil")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_well_formed_and_asks_for_nothing(name):
    text = page(content(name))
    parsed = Parsed(text)
    assert parsed.wrong == [] and parsed.open == []
    asked = [a for _, attrs in parsed.elements for k, a in attrs.items() if k in ("src", "href", "action", "srcset")]
    assert asked == ["data:,"]
    assert not re.search(r"url\(|@import|https?:", parsed.texts["style"][0])


@pytest.mark.parametrize("name", NAMES)
def test_the_documents_are_in_it_as_they_are_printed(name):
    of = content(name)
    parsed = Parsed(page(of))
    assert parsed.json("document") == of.document
    assert (parsed.json("difference"), parsed.json("about")) == (of.difference, of.about)


@pytest.mark.parametrize("name", NAMES)
def test_only_its_own_script_may_run(name):
    parsed = Parsed(page(content(name)))
    (policy,) = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(parsed.texts["script"][-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")


EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(2)>" onmouseover="alert(3)\' {{ 7*7 }}\u2028'


def poisoned(value):
    """A document whose names hold what would break out of a page that took them for markup."""
    if isinstance(value, dict):
        return {key: poisoned(x) for key, x in value.items()}
    if isinstance(value, list):
        return [poisoned(x) for x in value]
    return f"{value}{EVIL}" if isinstance(value, str) and value not in ("macs", "sqnr", "error", "name") else value


def test_names_of_a_model_are_text_whatever_they_hold():
    plain, bad = (page(PageContent(t, d, x, [t], ABOUT, [t] * 3)) for t, d, x in (
        ("t", searched(), pruned()[1]), (EVIL, poisoned(searched()), poisoned(pruned()[1]))
    ))  # fmt: skip
    before, after = Parsed(plain), Parsed(bad)
    assert after.wrong == []
    assert [tag for tag, _ in before.elements] == [tag for tag, _ in after.elements]
    assert not [a for _, attrs in after.elements for a in attrs if a.startswith("on") or a == "src"]
    assert "49" not in after.texts["h1"][0] and after.texts["h1"][0] == EVIL
    assert after.json("difference")["layers"][0]["name"] == f"/conv/Conv{EVIL}"


def test_what_a_run_says_is_shown():
    parsed = Parsed(page(content("prune")))
    assert any("32 → 16" in text for text in parsed.texts["li"])
    tips = [attrs["data-tip"] for _, attrs in parsed.elements if "data-tip" in attrs]
    assert any("graph output 'logits'" in tip and tip.startswith("/fc_1/Gemm") for tip in tips)
    assert any("once re-fitted" in tip for tip in tips) and any("of the weights" in tip for tip in tips)
    assert {"proven", "outputs kept"} <= {*(text.strip() for text in parsed.texts["b"])}
    assert any("equal to the masked original" in text for text in parsed.texts["li"])
    assert "onnxprune prune 'a b.onnx'" in parsed.texts["code"] and any("f00d" in t for t in parsed.texts["code"])
    titles = [re.sub(r"\s*\d+$", "", text).strip() for text in parsed.texts["summary"]]
    assert {"Groups", "Locked, and why", "Repair, by layer", "Layers", "Options"} <= {*titles}


def test_trials_have_the_commands_that_make_them():
    parsed = Parsed(page(content("search")))
    spots = [attrs for tag, attrs in parsed.elements if tag == "button" and "data-command" in attrs]
    assert [s["data-command"] for s in spots] == ["cmd one", "cmd two", "cmd three"][: len(spots)] and spots
    assert all(s["aria-label"] == s["data-tip"] for s in spots)


def test_every_step_of_a_recipe_is_shown():
    parsed = Parsed(page(content("run")))
    assert "Step 1: prune" in parsed.texts["h2"]


def test_the_cut_is_marked_on_curves_and_in_the_table():
    text = page(content("sensitivity"))
    assert text.count('class="spot chosen"') == 2 and text.count('class="cut">50%') == 2


def test_a_failed_proof_is_told():
    proof = pruned()[0]["proof"] | {"ok": False, "error": None, "problem": "other outputs"}
    parsed = Parsed(page(PageContent("t", {"proof": proof})))
    assert "not proven" in parsed.texts["b"] and any("other outputs" in p for p in parsed.texts["p"])


def test_a_verdict_alone_is_a_proof():
    assert "proven" in Parsed(page(PageContent("t", pruned()[0]["proof"]))).texts["b"]


def test_without_the_library_it_is_said_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match="--report needs jinja2"):
        check_templates()


def test_names_that_do_not_fit_into_a_tile_are_hidden():
    tiles = re.findall(
        r'height:([\d.]+)%" data-tip="[^"]*"><i [^>]*></i><span( style="visibility:hidden")?>', page(content("prune"))
    )
    assert {bool(hidden) for _, hidden in tiles} == {True, False}
    assert all((float(height) < 4) == bool(hidden) for height, hidden in tiles)
