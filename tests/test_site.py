"""The pages as a site: every page is in its contents, and it builds without a broken link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import onnxprune

ROOT = Path(__file__).parents[1]
# Pages of the site that `docs/site/generated_pages.py` makes.
NOTEBOOKS = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
MADE = {"index.md", "models.md", "reference.md", *NOTEBOOKS}


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/-]+\.md", contents)
    assert sorted(listed) == sorted({str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} | MADE)


class Assets(HTMLParser):
    """What a page loads, what it links to, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("href") and found.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material")
    pytest.importorskip("mkdocstrings_handlers.python", reason="needs mkdocstrings")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "-f",
        ".mkdocs.yml",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [page for page in tmp_path.rglob("*.html") if page.name != "404.html"]
    pages = {page: Assets(page.read_text(encoding="utf-8")) for page in files}
    assert len(pages) == len(list((ROOT / "docs").rglob("*.md"))) + len(MADE)
    for page, assets in pages.items():
        assert [url for url in assets.loaded if urlsplit(url).scheme or url.startswith("//")] == [], page
        for link in assets.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (page.parent / url.path).resolve() if url.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page}: {link}"
            assert not url.fragment or url.fragment in pages[target].places, f"{page}: {link}"
    known = {place.rpartition(".")[2] for place in pages[tmp_path / "reference" / "index.html"].places}
    assert {*onnxprune.__all__} - {"register_rule"} <= known, "a public name is not in the reference"


def test_the_page_of_a_package_index_links_to_nothing_that_is_not_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with (ROOT / "pyproject.toml").open("rb") as file:
        hook = tomllib.load(file)["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        readme = re.sub(rule["pattern"], rule["replacement"], readme)
    assert not [target for target in re.findall(r"\]\(([^)]*)\)", readme) if not target.startswith("https://")]
    assert "Keep the accuracy |" in readme and ".svg" not in readme
