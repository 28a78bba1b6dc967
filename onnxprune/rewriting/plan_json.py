"""The text of a plan: JSON of one format, checked field by field when it is read."""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.typing import Array

FORMAT = "onnxprune-plan"
VERSION = 1
# The kinds of steps that put units into another order, that turn them into directions, that set elements of a weight to
# zero, that take a block out, and that make a product of a weight. Steps that remove units are those of groups.
REORDER, ROTATE, ZERO, BYPASS, FACTORISE = "reorder", "rotate", "zero", "bypass", "factorise"
# What a step of a kind is of: no two are of the same.
_OF = {REORDER: "group", ROTATE: "group", ZERO: "tensor", BYPASS: "block", FACTORISE: "tensor"}
# How far the columns of a basis may be from orthonormal.
_NEAR = 1e-3
_WRITES = "`onnxprune plan` writes one"
# A list of numbers as `json` indents it: one line is easier to read and to edit.
_NUMBERS = re.compile(r"\[\n\s*([-+.\deE,\s]+?)\s*\]")


def to_text(
    source: Mapping[str, Any],
    options: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    barriers: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write a plan as text, one line per value that a person may edit; `steps` as `parse` returns them."""
    head = {"format": FORMAT, "version": VERSION, "source": dict(source), "options": dict(options)}
    groups = [{"name" if name == "group" else name: value for name, value in step.items()} for step in steps]
    body = head | {"groups": groups, "barriers": list(barriers)} | ({"steps": list(others)} if others else {})
    text = json.dumps(body, indent=1)
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def parse(text: str | bytes) -> dict[str, Any]:
    """Read the text of a plan: its source, options and barriers, and the fields of every step.

    Raises:
        UsageError: the text is not a plan of a version that is known; the first offence is named by its place.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the plan is not JSON: {error}", hint=_WRITES) from None
    expect(isinstance(raw, dict) and raw.get("format") == FORMAT, f"'format' must be {FORMAT!r}", "$.format")
    version = raw.get("version")
    expect(version == VERSION, f"version {version!r} is not known, only {VERSION}", "$.version")
    for name in ("source", "options"):
        expect(isinstance(raw.get(name, {}), dict), "must be an object", f"$.{name}")
    files = raw.get("source", {}).get("files", {})
    expect(isinstance(files, dict) and _are_texts(list(files.values())), "must be digests by name", "$.source.files")
    for name in ("groups", "barriers", "steps"):
        expect(isinstance(raw.get(name, []), list), "must be a list", f"$.{name}")
    _check_kinds(raw.get("steps", []))
    _check_options(raw.get("options", {}))
    return {
        "source": raw.get("source", {}),
        "options": raw.get("options", {}),
        "steps": [_step(step, f"$.groups[{i}]") for i, step in enumerate(raw.get("groups", []))],
        "barriers": tuple(raw.get("barriers", [])),
        "others": tuple(raw.get("steps", [])),
    }


def _check_kinds(steps: Sequence[Any]) -> None:
    """Steps other than those of groups, each of a known kind, and of a tensor or block of its own."""
    for i, step in enumerate(steps):
        expect(isinstance(step, dict), "must be an object", f"$.steps[{i}]")
        kind = step.get("kind")
        known = isinstance(kind, str) and kind in _OF
        expect(known, f"{kind!r} is not known, only {', '.join(map(repr, _OF))}", f"$.steps[{i}].kind")
    for kind, what in _OF.items():
        names = [str(step.get(what)) for step in steps if step["kind"] == kind]
        expect(len({*names}) == len(names), f"a {what} is in it twice", "$.steps")


def _check_options(options: Mapping[str, Any]) -> None:
    sizes, rows = options.get("sizes") or {}, options.get("rows") or []
    positive = isinstance(sizes, dict) and all(_is_int(n) and n > 0 for n in sizes.values())
    expect(positive, "must be positive integers by name", "$.options.sizes")
    expect(_are_texts(rows), "must be names", "$.options.rows")
    opened = options.get("allow_io_changes", False)
    expect(isinstance(opened, bool) or _are_texts(opened), "must be true, false or globs", "$.options.allow_io_changes")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _step(raw: Any, where: str) -> dict[str, Any]:
    """The fields of a step."""
    expect(isinstance(raw, dict), "must be an object", where)
    expect(isinstance(raw.get("name"), str), "must be a text", f"{where}.name")
    for name in ("size", "units"):
        expect(_is_int(raw.get(name)) and raw[name] > 0, "must be a positive integer", f"{where}.{name}")
    expect(_is_int(raw.get("layout", 0)), "must be an integer", f"{where}.layout")
    for name, test, what in (("remove", _is_int, "integers"), ("scores", _is_number, "numbers")):
        values = raw.get(name, [])
        expect(isinstance(values, list) and all(map(test, values)), f"must be a list of {what}", f"{where}.{name}")
    members = raw.get("members", [])
    are_objects = isinstance(members, list) and all(isinstance(m, dict) for m in members)
    expect(are_objects, "must be objects", f"{where}.members")
    return {
        "group": raw["name"],
        "kind": str(raw.get("kind", "channel")),
        "exact": bool(raw.get("exact", True)),
        "approximate": str(raw.get("approximate", "")),
        "units": raw["units"],
        "size": raw["size"],
        "remove": tuple(raw.get("remove", [])),
        "layout": raw.get("layout", 0),
        "scores": tuple(raw.get("scores", [])),
        "members": tuple(members),
    }


def packed_basis(basis: Array) -> str:
    """Write orthonormal columns as text: float32 in rows, compressed."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(basis, "<f4").tobytes(), 9)).decode("ascii")


def unpacked_basis(text: Any, rows: int, columns: int, where: str) -> Array:
    """Read orthonormal columns.

    Args:
        text: what `packed_basis` gave.
        rows: how many numbers a column has.
        columns: how many columns there are.
        where: the place in the plan.

    Returns:
        float32[rows, columns].

    Raises:
        UsageError: the text is something else.
    """
    size = 4 * rows * columns
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, TypeError, ValueError):
        data = b""
    what = f"must be {rows} x {columns} orthonormal float32, compressed and in base64"
    expect(len(data) == size, what, where)
    values = np.frombuffer(data, "<f4").reshape(rows, columns)
    expect(bool(np.isfinite(values).all()), what, where)
    expect(bool(np.abs(values.T.astype(np.float64) @ values - np.eye(columns)).max() < _NEAR), what, where)
    return values


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def expect(condition: bool, what: str, where: str) -> None:
    """Refuse a plan in which something is not as it must be.

    Raises:
        UsageError: it is not; `where` is its place.
    """
    if not condition:
        raise UsageError(f"bad plan: {what} @ {where}")
