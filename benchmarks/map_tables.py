"""What was found about ways to fit skin maps, in Markdown, beside what it is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks import metrics
from benchmarks.map_scores import Array, Interval, Spread, change, gain, paired, root_change
from nextface.textures import MAP_CHANNELS

Row = Mapping[str, float | str]
"""A `MapScore`'s values, with "photo", "tone" and "light"."""
COLUMNS = {
    "albedo": ("albedo dB", ".2f"),
    "whole": ("whole face dB", ".2f"),
    "specular": ("specular", ".4f"),
    "roughness": ("roughness", ".4f"),
    "normal": ("normal °", ".3f"),
    "residual": ("residual", ".5f"),
    "seconds": ("s", ".1f"),
}
MEASURE = {"diffuse": "albedo", "specular": "specular", "roughness": "roughness", "normal": "normal"}
"""That shows what the weight of a domain does."""

ALBEDO_GAIN, GLOSS_CHANGE, GROUP_LOSS, SPREAD_CHANGE = 0.5, -0.05, -0.2, -0.2
"""Bounds: dB against no prior, shares of the errors of specular weight and roughness, dB of a skin type, share of the spread."""


def column(rows: Sequence[Row], name: str) -> Array:
    return np.array([float(row[name]) for row in rows])


def means(arms: Mapping[str, Sequence[Row]]) -> str:
    """One line an arm, the means over its photos."""
    lines = [f"| arm | {' | '.join(title for title, _ in COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, rows in arms.items():
        cells = [format(column(rows, key).mean(), form) for key, (_, form) in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(prior: Sequence[Row], none: Sequence[Row], mean: Sequence[Row] | None) -> str:
    """The prior against no prior and, where it is known, against the pull to the mean, photo by photo."""
    lines = ["| measure | against | change [95%] | bound | |", "|---|---|---|---|---|"]
    for name, other in (("none", none), ("mean", mean)):
        if other is None:
            continue
        better = paired(gain, column(prior, "albedo"), column(other, "albedo"))
        least = ALBEDO_GAIN if name == "none" else 0.0
        fine = better.value >= least and better.low > 0.0
        lines.append(_line("albedo", name, better.text("+.2f") + " dB", f"≥ {least:+.1f} dB, interval > 0", fine))
        for measure in ("specular", "roughness"):
            found = paired(change, column(prior, measure), column(other, measure))
            fine = found.value <= GLOSS_CHANGE
            lines.append(_line(measure, name, found.text("+.1%"), f"≤ {GLOSS_CHANGE:+.0%}", fine))
        turned = paired(gain, column(prior, "normal"), column(other, "normal"))
        lines.append(_line("normal", name, turned.text("+.3f") + "°", "≤ 0", turned.value <= 0.0))
    return "\n".join([*lines, "", *_groups(prior, none, mean)])


def _groups(prior: Sequence[Row], none: Sequence[Row], mean: Sequence[Row] | None) -> Iterable[str]:
    """Gain in albedo by the true skin's type."""
    yield "| skin type | photos | albedo against none dB | against mean dB | bound | |"
    yield "|---|---|---|---|---|---|"
    types = [metrics.skin_type(float(row["tone"])) for row in prior]
    for name in [*(name for _, name in metrics.SKIN_TYPES), "dark"]:
        own = np.array([each == name for each in types])
        if own.any():
            found = [
                paired(gain, column(prior, "albedo")[own], column(other, "albedo")[own])
                for other in (none, mean or none)
            ]
            cells = [each.text("+.2f") for each in found[: 1 if mean is None else 2]] + ["–"] * (mean is None)
            verdict = _met(found[0].value >= GROUP_LOSS)
            yield f"| {name} | {own.sum()} | {cells[0]} | {cells[1]} | ≥ {GROUP_LOSS:+.1f} | {verdict} |"


def lights(spreads: Mapping[str, Spread], rows: Mapping[str, Sequence[Row]]) -> str:
    """The same people under several lights. Both by arm, "none" among them; rows in the same order of photos."""
    lines = ["| arm | spread | change [95%] | bound | | between / within | bound | |", "|---" * 8 + "|"]
    base = spreads["none"]
    for name, found in spreads.items():
        cells = f"{float(np.sqrt(found.within.mean())):.5f}"
        if name == "none":
            lines.append(f"| {name} | {cells} | | | | {found.ratio:.2f} | | |")
            continue
        less = paired(root_change, found.within, base.within)
        lines.append(
            f"| {name} | {cells} | {less.text('+.1%')} | ≤ {SPREAD_CHANGE:+.0%} | {_met(less.value <= SPREAD_CHANGE)}"
            f" | {found.ratio:.2f} | > {base.ratio:.2f} | {_met(found.ratio > base.ratio)} |"
        )
    lines += ["", "| light | arm | albedo dB against none | bound | |", "|---|---|---|---|---|"]
    places = [str(row["light"]) for row in rows["none"]]
    for light in dict.fromkeys(places):
        own = np.array([each == light for each in places])
        for name in spreads:
            if name != "none":
                found = paired(gain, column(rows[name], "albedo")[own], column(rows["none"], "albedo")[own])
                lines.append(f"| {light} | {name} | {found.text('+.2f')} | ≥ 0 | {_met(found.value >= 0.0)} |")
    return "\n".join(lines)


def best_weights(tried: Mapping[float, Sequence[Row]]) -> tuple[float, ...]:
    """For each domain the common weight with the best measure of its own, 0 among them, in the order of `MAP_CHANNELS`."""
    found = []
    for domain in MAP_CHANNELS:
        sign = -1.0 if domain == "diffuse" else 1.0
        errors = {weight: sign * column(rows, MEASURE[domain]).mean() for weight, rows in tried.items()}
        found.append(min(errors, key=lambda weight: errors[weight]))
    return tuple(found)


def residual_change(prior: Sequence[Row], none: Sequence[Row]) -> Interval:
    return paired(change, column(prior, "residual"), column(none, "residual"))


def _line(measure: str, against: str, found: str, bound: str, fine: bool) -> str:
    return f"| {measure} | {against} | {found} | {bound} | {_met(fine)} |"


def _met(fine: bool) -> str:
    return "met" if fine else "MISSED"
