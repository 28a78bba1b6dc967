"""Pages of the site that are made of other files: the first page, models, notebooks, the reference of public names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import onnxprune

ROOT = Path(__file__).parents[2]


def first_page() -> str:
    """The README, whose links are relative to the folder above."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](models/README.md", "](models.md")


def models_page() -> str:
    """The list of the models."""
    return (ROOT / "models" / "README.md").read_text(encoding="utf-8").replace("](../docs/", "](")


def reference_page() -> str:
    """The docstrings of all public names."""
    homes = (onnxprune._HOMES[name].replace(":", ".") for name in onnxprune.__all__)
    names = (
        f"::: {home if home.endswith((f'.{name}', '.rule')) else f'{home}.{name}'}"
        for home, name in zip(homes, onnxprune.__all__, strict=True)
    )
    return "# Reference\n\nEvery public name of `onnxprune`.\n\n" + "\n\n".join(names) + "\n"


def notebook_pages() -> dict[str, str]:
    """Every notebook with its results as a page, and its pictures."""
    pages: dict[str, str] = {}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        parts = []
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
            for result in cell.get("outputs", ()):
                parts += _shown(result, f"{path.stem}-{len(pages)}.svg", pages)
        parts.append(f"This page is the notebook `docs/notebooks/{path.name}`.")
        pages[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return pages


def _shown(result: dict[str, Any], picture: str, pages: dict[str, str]) -> Iterator[str]:
    """A result of a cell in Markdown; a picture becomes a file of its own."""
    data = {kind: "".join(text) for kind, text in result.get("data", {}).items()}
    if "image/svg+xml" in data:
        pages[f"notebooks/{picture}"] = data["image/svg+xml"]
        yield f"![picture]({picture})"
    elif "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        yield re.sub(r"\n\s*\n", "\n", table.replace('border="1" class="dataframe"', ""))  # a blank line would end it
    else:
        yield f"```text\n{data.get('text/plain') or ''.join(result['text']).rstrip()}\n```"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to notebooks to their pages."""
    return re.sub(r"(\]\([\w./]*notebooks/\w+)\.ipynb\)", r"\1.md)", markdown)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, as MkDocs asks for them."""
    pages = {"index.md": first_page(), "models.md": models_page(), "reference.md": reference_page()} | notebook_pages()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files
