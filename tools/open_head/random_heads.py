"""Random neutral heads drawn from the modelling targets."""

from __future__ import annotations

import re

import numpy as np
import scipy.sparse as sparse

from open_head.assets import Targets

ETHNICITIES = ("african", "asian", "caucasian")
GENDERS = ("female", "male")
AGES = ("child", "young", "old")
LEVELS = ("min", "average", "max")
DETAIL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck")
DETAIL_SD = 0.25
SPREADS = (
    (re.compile(r"mouth/mouth-trans-(in|out)$|nose/nose-trans-horiz-"), 0.06),
    (re.compile(r"head/head-(scale|back)|forehead/forehead-(scale|nubian)"), 0.14),
    (re.compile(r"head/head-|neck/"), 0.16),
    (re.compile(r"ears/.-ear-shape1"), 0.05),
    (
        re.compile(r"ears/.-ear-(shape2|flap|wing|lobe)|nose-flaring|nose-curve|nose-hump|eye-bag|eye-height|eye-push"),
        0.2,
    ),
)
"""Standard deviations of target weights, first match, else `DETAIL_SD`; what looks like a caricature varies less."""
SIDE_SD = 0.03
"""Difference between the left and the right twin of a target."""
OPPOSITES = (
    ("less", "more"), ("decr", "incr"), ("min", "max"), ("down", "up"), ("in", "out"), ("backward", "forward"),
    ("small", "big"), ("deflate", "inflate"), ("concave", "convex"), ("compress", "uncompress"), ("point", "potato"),
    ("lessgreek", "moregreek"), ("lesshump", "morehump"), ("decrease", "increase"), ("skinny", "fat"),
    ("pointed", "triangle"), ("round", "square"),
)  # fmt: skip
NOT_SHAPE = re.compile(r"head/head-trans-|neck/neck-trans-|head/head-angle-")


def macro_weights(rng: np.random.Generator) -> dict[str, float]:
    """A person's ethnicity, sex, age, muscle and weight as weights of the macro targets (products of factors)."""
    ethnicity = dict(zip(ETHNICITIES, rng.dirichlet([0.5] * 3), strict=True))
    male = rng.beta(0.5, 0.5)
    gender = {"female": 1 - male, "male": male}
    old = rng.beta(0.9, 1.6)
    child = rng.uniform(0.1, 0.6) if rng.random() < 0.08 else 0.0
    age = {"child": child, "young": (1 - child) * (1 - old), "old": (1 - child) * old}
    muscle = _levels(rng.normal(0.0, 0.35))
    weight = _levels(rng.normal(0.05, 0.45))
    weights: dict[str, float] = {}
    for g in GENDERS:
        for a in AGES:
            for e in ETHNICITIES:
                weights[f"macrodetails/{e}-{g}-{a}"] = gender[g] * age[a] * ethnicity[e]
            for m in LEVELS:
                for w in LEVELS:
                    name = f"macrodetails/universal-{g}-{a}-{m}muscle-{w}weight"
                    weights[name] = gender[g] * age[a] * muscle[m] * weight[w]
    return weights


def _levels(value: float) -> dict[str, float]:
    value = float(np.clip(value, -1.0, 1.0))
    return {"min": max(-value, 0.0), "average": 1 - abs(value), "max": max(value, 0.0)}


def detail_axes(targets: Targets) -> list[tuple[str, str | None]]:
    """Pairs of opposite detail targets (or a lone one), without the mirrored twin of left-sided ones."""
    names = [n for folder in DETAIL_FOLDERS for n in targets.under(folder) if not NOT_SHAPE.search(n)]
    axes: list[tuple[str, str | None]] = []
    used: set[str] = set()
    for name in names:
        if name in used or "/r-" in name:
            continue
        stem, _, last = name.rpartition("-")
        partner = next(
            (
                f"{stem}-{b if last == a else a}"
                for a, b in OPPOSITES
                if last in (a, b) and f"{stem}-{b if last == a else a}" in targets
            ),
            None,
        )
        used.add(name)
        if partner is not None:
            used.add(partner)
        axes.append((name, partner))
    return axes


def detail_weights(rng: np.random.Generator, axes: list[tuple[str, str | None]]) -> dict[str, float]:
    """Half-normal weights of one target of each axis; both sides of the head nearly alike."""
    weights: dict[str, float] = {}
    for one, other in axes:
        sd = next((spread for pattern, spread in SPREADS if pattern.search(one)), DETAIL_SD)
        value = float(np.clip(rng.normal(0.0, sd), -2.5 * sd, 2.5 * sd))
        if "/l-" not in one:
            _add(weights, one, other, value)
            continue
        for side in ("/l-", "/r-"):
            _add(
                weights,
                one.replace("/l-", side),
                None if other is None else other.replace("/l-", side),
                value + rng.normal(0.0, SIDE_SD),
            )
    return weights


def _add(weights: dict[str, float], one: str, other: str | None, value: float) -> None:
    if value >= 0:
        weights[one] = value
    elif other is not None:
        weights[other] = -value


def draw_heads(targets: Targets, base: np.ndarray, weights: sparse.csr_matrix, count: int, seed: int) -> np.ndarray:
    """Neutral heads in decimetres.

    base: [19158, 3]; weights: the head's vertices as combinations of base vertices, sparse [V, 19158]
    returns: [count, V, 3]
    """
    rng = np.random.default_rng(seed)
    axes = detail_axes(targets)
    people = [macro_weights(rng) | detail_weights(rng, axes) for _ in range(count)]
    names = sorted({name for person in people for name in person})
    matrix = np.array([[person.get(name, 0.0) for name in names] for person in people])
    bank = np.stack([targets.displacement(name, weights).ravel() for name in names])
    heads = (weights @ base).ravel() + matrix.astype(np.float32) @ bank.astype(np.float32)
    return heads.reshape(count, -1, 3)
