"""The notebooks: every cell runs, in an empty folder, and gives what is stored.

`python -m tests.test_notebooks [NAME ...]` stores what the cells give now. Needs nbclient and ipykernel.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.cli.test_task_pages import numbers, words, workplace

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# What a notebook needs beside the package and its notebook extra.
NEEDS = {"pytorch": "torch"}
MINUTES = 5


def executed(path: Path, folder: Path) -> Any:
    """The notebook with what its cells give; a cell that fails is an error."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    if importlib.util.find_spec("ipykernel") is None:  # an import would make a notebook of this process
        pytest.skip("needs ipykernel")
    import nbformat

    book = nbformat.read(path, as_version=4)
    home, environment = workplace(folder)
    resources = {"metadata": {"path": str(home)}}
    with mock.patch.dict(os.environ, environment):
        nbclient.NotebookClient(book, timeout=60 * MINUTES, resources=resources).execute()
    for cell in book.cells:
        cell.metadata = {}
        if "outputs" in cell:  # warnings name files of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return book


def texts(book: Any) -> list[str]:
    """What the cells print and show as text, in their order."""
    given = [output for cell in book.cells for output in cell.get("outputs", ())]
    return [str(o["text"] if "text" in o else o["data"]["text/plain"]) for o in given]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_what_is_stored(path: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(path.stem)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
    stored, made = texts(nbformat.read(path, as_version=4)), texts(executed(path, tmp_path))
    assert stored, "no cell has given anything"
    assert [words(text) for text in made] == [words(text) for text in stored]
    for given, kept in zip(made, stored, strict=True):
        assert numbers(given) == pytest.approx(numbers(kept), rel=0.1, abs=0.02)


if __name__ == "__main__":
    import nbformat

    for notebook in NOTEBOOKS:
        if not sys.argv[1:] or notebook.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as scratch:
                nbformat.write(executed(notebook, Path(scratch)), notebook)
