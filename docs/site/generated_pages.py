"""Pages of the site that are made of other files: the first page, the models, the reference of the public names."""

from __future__ import annotations

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


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, as MkDocs asks for them."""
    pages = {"index.md": first_page(), "models.md": models_page(), "reference.md": reference_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files
