"""The keyword arguments of the verbs in Python: names and types, so that editors complete and type checkers read them.

`tests/test_keywords.py` holds each list equal to the options that it stands for, which say what they mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict, TypeVar, cast

from onnxprune.names import SYNONYMS

Verb = TypeVar("Verb", bound=Callable[..., Any])
Budget = str | float | None


class CutKeywords(TypedDict, total=False):
    """Which units are removed, and how many: fields of `allocation.Options`."""

    aggregate: str | None
    normalize: str | None
    params: Budget
    macs: Budget
    size: Budget
    memory: Budget
    latency: Budget
    allocation: str
    max_ratio: float
    keep: Sequence[str]
    only: Sequence[str]
    round_to: int | str | None
    heads: bool
    head_dims: bool
    exact_only: bool
    allow_io_changes: bool | Sequence[str]
    rows: Mapping[str, Sequence[int]]
    seed: int
    steps: int
    step_schedule: str
    rotate: bool


class UnitKeywords(CutKeywords, total=False):
    """The same for `prune`, which has parameters for the ratio and the criterion."""

    ratios: Mapping[str, float]
    drop: bool
    exchanges: int
    cache: str | None


class ChoiceKeywords(UnitKeywords, total=False):
    """The same for a plan."""

    criterion: Any


class FolderChoiceKeywords(ChoiceKeywords, total=False):
    """The same for a plan of a folder, and how its model is run."""

    sizes: Mapping[str, int] | None
    data: Any
    samples: int


class FolderKeywords(FolderChoiceKeywords, total=False):
    """The same for a folder that is written, and how it is proven and repaired."""

    verify: bool
    recovery: str


class ApplyKeywords(TypedDict, total=False):
    """How a plan is carried out."""

    zero: bool
    verify: bool
    data: Any
    samples: int
    recovery: str


class CurveKeywords(CutKeywords, total=False):
    """The same for curves, whose `ratios` are those that are measured, and whose `cache` is that of measurements."""

    ratio: float | None
    criterion: Any


class ZeroKeywords(TypedDict, total=False):
    """Which elements become zero: the fields of `sparsity.SparsifyOptions`."""

    method: str
    pattern: str
    per: str
    keep: Sequence[str]
    only: Sequence[str]
    ratios: Mapping[str, float]
    floor: float
    params: Budget
    size: Budget
    recover: bool | None
    in_sequence: bool
    permute: bool
    storage: str
    seed: int
    masks: Mapping[str, Any] | None


class BlockKeywords(TypedDict, total=False):
    """Which blocks are dropped: the fields of `pipelines.DropOptions`, with a budget of each kind."""

    blocks: Sequence[str]
    count: int | None
    ratio: float | None
    params: Budget
    macs: Budget
    size: Budget
    criterion: str
    units: str
    keep: Sequence[str]
    recover: bool
    add_nodes: bool
    allow_io_changes: bool
    seed: int


class LayerKeywords(BlockKeywords, total=False):
    """The same for a folder, and how its model is run and proven."""

    verify: bool
    sizes: Mapping[str, int] | None
    data: Any
    samples: int


class ProductKeywords(TypedDict, total=False):
    """Which weights become products: the fields of `allocation.LowRankOptions`."""

    ratio: float | None
    ranks: Mapping[str, int]
    only: Sequence[str]
    keep: Sequence[str]
    params: Budget
    macs: Budget
    size: Budget
    latency: Budget
    forms: Sequence[str]
    round_to: int | None
    method: str
    in_sequence: bool
    recover: bool
    allow_slower: bool
    steps: Sequence[Any]


class TrainingKeywords(TypedDict, total=False):
    """How to train: the fields of `recovery.TrainingOptions` but for the number of steps."""

    loss: Any
    rate: float | None
    optimizer: str
    schedule: Any
    warm_up: int | None
    batch: int
    accumulate: int | None
    clip: float
    decay: float
    rates: Mapping[str, float]
    freeze: Sequence[str]
    freeze_blocked: bool
    learn_scales: bool
    average: float
    augment: Sequence[str]
    intermediate: Sequence[str]
    padding: str | None
    temperature: float | None
    while_training: str
    every: int | None
    norm_statistics: bool
    patience: int
    seed: int
    threads: int
    provider: str
    workers: Any
    parts: int | None
    saving: Any


class AutoKeywords(TypedDict, total=False):
    """What is to be reached, and how: fields of `pipelines.auto_search.AutoOptions`, what judges, and the budgets."""

    size: Budget
    latency: Budget
    macs: Budget
    params: Budget
    max_drop: str | float | None
    min_sqnr: float | None
    smallest: str
    labels: str | None
    metrics: Sequence[str]
    output: str | None
    evaluate: Any
    samples: int
    sizes: Mapping[str, int]
    place: Any
    workers: Any


# Options of the command line that have no equal in Python, and where their work is done there.
ELSEWHERE = {"dask": "workers", "jobs": "workers"}


def synonym(word: str, known: Collection[str]) -> str | None:
    """Find the known word that means the same as another.

    Args:
        word: one that is not known, with underscores.
        known: the words that are taken, with underscores.

    Returns:
        The known word; `None` unless there is exactly one.
    """
    meant = [other for row in SYNONYMS if word in row for other in row if other in known]
    return meant[0] if len(meant) == 1 else None


def accepts_synonyms(known: type | None = None) -> Callable[[Verb], Verb]:
    """Let a function take keyword arguments by the names that they have on the command line and in other tools.

    Args:
        known: the `TypedDict` of the keyword arguments that have no parameter of their own.
    """
    kinds: Mapping[str, object] = {} if known is None else known.__annotations__

    def add(verb: Verb) -> Verb:
        code = verb.__code__
        taken = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *_keys(known)}

        @functools.wraps(verb)
        def called(*args: Any, **given: Any) -> Any:
            return verb(*args, **{_spelled(name, given, taken, kinds): value for name, value in given.items()})

        return cast(Verb, called)

    return add


def _spelled(name: str, given: Mapping[str, object], taken: set[str], kinds: Mapping[str, object]) -> str:
    """A keyword as the function has it; one that is not known, or would be there twice, stays as it is."""
    meant = None if name in taken else synonym(name, taken)
    if meant is None or meant in given:
        return name
    is_flag = "bool" in str(kinds.get(meant, ""))
    return name if is_flag and not isinstance(given[name], bool) else meant


def _keys(known: type | None) -> frozenset[str]:
    return frozenset() if known is None else known.__optional_keys__  # type: ignore[attr-defined]


def check_keywords(given: Mapping[str, object], known: type, *others: str) -> None:
    """Refuse keyword arguments that a function does not take, with the name that may be meant, as Python does.

    Args:
        given: the keyword arguments that have no parameter of their own.
        known: the `TypedDict` of those that are taken.
        others: the names of parameters, which may be meant too.

    Raises:
        TypeError: one is not known.
    """
    names = [*sorted(_keys(known)), *others]
    for name in given:
        if name in names:
            continue
        near = get_close_matches(name, names, 1)
        elsewhere = ELSEWHERE.get(name)
        meant = synonym(name, names) or (elsewhere if elsewhere in names else next(iter(near), None))
        advice = f"did you mean {meant!r}?" if meant else f"known: {', '.join(dict.fromkeys(names))}"
        raise TypeError(f"unknown keyword argument {name!r}: {advice}")
