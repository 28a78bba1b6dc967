"""Attention of any kind: optional inputs, layouts and attributes drawn at random, pruned at random, and proven."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graphs.net import Net, prune
from tests.tracing.rules.test_attention import apart, together

MICROSOFT = "com.microsoft"
KINDS = ("standard", "multi", "merged", "grouped")


class Drawn:
    """A net with one attention operator, as a seed says."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.group = self.pick(1, 1, 2, 3)
        self.pairs = self.pick(1, 2, 4)
        self.heads, self.size = self.pairs * self.group, self.pick(4, 8, 16)
        self.length, self.cached = self.pick(3, 5), self.yes()
        self.past = self.pick(2, 4) if self.cached else 0
        self.net = Net(24 if self.yes() else 23, seed=seed)

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def yes(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def some(self, **attrs: Any) -> dict[str, Any]:
        return {name: value for name, value in attrs.items() if self.yes()}

    def given(self, name: str, heads: int, size: int, length: int = 0) -> str:
        return self.net.make((2, length or self.length, heads * size), 2, weight=name)

    def cache(self, name: str, heads: int, size: int) -> str:
        return apart(self.net, self.given(name, heads, size, self.past), heads, size)

    def mask(self) -> str:
        shape = self.pick((1, 1), (2, self.heads), (1, self.heads), (2, 1))
        value = self.net.rng.standard_normal((*shape, self.length, self.past + self.length))
        return self.net.const(value.astype(np.float32), "mask")

    def read(self, made: list[str], four: bool = False) -> None:
        """Contract every output; those behind the first have an axis for the heads."""
        for index, tensor in enumerate(made):
            merged = together(self.net, tensor) if index or four else tensor
            self.net.read(merged, 2, weight=f"w_out{index}")

    def standard(self) -> None:
        v_size, four = self.pick(self.size, self.size + 2), self.yes()
        x = [
            self.given("w_q", self.heads, self.size),
            self.given("w_k", self.pairs, self.size),
            self.given("w_v", self.pairs, v_size),
        ]
        counts = {"q_num_heads": self.heads, "kv_num_heads": self.pairs}
        if four:
            sizes = ((self.heads, self.size), (self.pairs, self.size), (self.pairs, v_size))
            x, counts = [apart(self.net, t, *n) for t, n in zip(x, sizes, strict=True)], {}
        x.append(self.mask() if self.yes() else "")
        if self.cached:
            x += [self.cache("w_pk", self.pairs, self.size), self.cache("w_pv", self.pairs, v_size)]
        attrs = counts | self.some(scale=0.3, softcap=2.0, is_causal=1)
        made = self.net.add("Attention", *x, outputs=3 if self.cached else 1, **attrs)
        self.read(made if self.cached else [made], four)

    def multi(self) -> None:
        self.heads = self.pairs
        v_size = self.size if self.cached else self.pick(self.size, self.size + 4)
        sizes = (self.size, self.size, v_size)
        x = [self.given(f"w_{n}", self.heads, s) for n, s in zip("qkv", sizes, strict=True)]
        x += [self.net.weight(self.heads * sum(sizes), name="bias") if self.yes() else "", ""]
        x.append(self.mask() if self.yes() else "")
        if self.cached:
            x += [self.cache(f"w_p{n}", self.heads, self.size) for n in "kv"]
        attrs = self.some(scale=0.3, unidirectional=1)
        made = self.net.add(
            *("MultiHeadAttention", *x),
            domain=MICROSOFT,
            outputs=3 if self.cached else 1,
            num_heads=self.heads,
            **attrs,
        )
        self.read(made if self.cached else [made])

    def merged(self) -> None:
        self.heads, self.cached, self.past = self.pairs, False, 0
        width = self.heads * self.size
        widths = [width, width, self.pick(width, width + 2 * self.heads)]
        x = [self.given("w_x", 1, 12), self.net.weight(12, sum(widths), name="w")]
        x += [self.net.weight(sum(widths), name="bias"), "", "", self.mask() if self.yes() else ""]
        attrs = self.some(scale=0.3, unidirectional=1)
        if self.yes() or widths[2] != width:
            attrs["qkv_hidden_sizes"] = widths
        self.read([self.net.add("Attention", *x, domain=MICROSOFT, num_heads=self.heads, **attrs)])

    def grouped(self) -> None:
        self.pairs = self.heads = 2 * self.pairs  # a single head cannot go
        self.heads *= self.group
        self.length, self.size = (1 if self.cached else self.length), self.pick(8, 16)
        packed, rotary = self.yes(), self.size == 16 and self.yes()
        if packed:
            x = [self.given("w_qkv", self.heads + 2 * self.pairs, self.size), "", ""]
        else:
            x = [self.given("w_q", self.heads, self.size), *(self.given(f"w_{n}", self.pairs, self.size) for n in "kv")]
        x += [self.cache(f"w_p{n}", self.pairs, self.size) for n in "kv"] if self.cached else ["", ""]
        total = self.past + self.length
        x += [self.net.const(np.full(2, total - 1, np.int32)), self.net.const(np.array(total, np.int32))]
        angles = self.net.rng.standard_normal((9, self.size // 2))
        x += [self.net.const(f(angles).astype(np.float32)) for f in (np.cos, np.sin)] if rotary else ["", ""]
        x += ["", self.mask() if self.yes() else ""]
        attrs = {"num_heads": self.heads, "kv_num_heads": self.pairs, "do_rotary": int(rotary)}
        attrs |= self.some(scale=0.3, softcap=2.0, local_window_size=2, rotary_interleaved=1)
        self.read(self.net.add("GroupQueryAttention", *x, domain=MICROSOFT, outputs=3, **attrs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_any_attention(kind: str, seed: int) -> None:
    check(kind, seed)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12, 300))
def test_any_attention_long(kind: str, seed: int) -> None:
    check(kind, seed)


def check(kind: str, seed: int) -> None:
    drawn = Drawn(seed)
    getattr(drawn, kind)()
    head_dims = kind != "grouped" and drawn.yes()
    outcome = prune(drawn.net.proto(), drawn.pick(0.25, 0.5, 0.75), head_dims=head_dims)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
