"""Examples of docstrings as code: Griffe knows the title in the plural."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


class ExamplesAsCode(Extension):
    """Names the sections as Griffe knows them."""

    def on_object(self, *, obj: Object, **given: Any) -> None:
        """Rename the section of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
