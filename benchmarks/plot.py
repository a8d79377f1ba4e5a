"""Small line plots on logarithmic axes, side by side, drawn with Pillow: a plotting package is no dependency of the project."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_SCALE = 2
_WIDTH, _HEIGHT = 330, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 50, 42
_INK, _GRID, _PAPER = (51, 56, 64), (226, 229, 233), (255, 255, 255)
_COLOURS = ((31, 111, 180), (214, 96, 40), (60, 150, 80), (140, 90, 170))


@dataclass(frozen=True)
class Curve:
    """Measured points, all positive, and the line that was fitted to them, drawn thin."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    fit: Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """One plot: title, name of the abscissa with its unit, curves."""

    title: str
    abscissa: str
    curves: Sequence[Curve]


def panels(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Panels in rows."""
    size = max(len(row) for row in rows) * _WIDTH * _SCALE, len(rows) * _HEIGHT * _SCALE
    picture = Image.new("RGB", size, _PAPER)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            picture.paste(_drawn(panel), (x * _WIDTH * _SCALE, y * _HEIGHT * _SCALE))
    return picture.resize((size[0] * 3 // 4, size[1] * 3 // 4), Image.Resampling.LANCZOS).quantize(64)


def _drawn(panel: Panel) -> Image.Image:
    picture = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(13 * _SCALE), ImageFont.load_default(11 * _SCALE)
    draw.text((_LEFT * _SCALE, 8 * _SCALE), panel.title, fill=_INK, font=font)
    across = _Axis([x for curve in panel.curves for x in curve.x], _LEFT, _WIDTH - _RIGHT)
    beside = float(_LEFT * _SCALE)
    down = _Axis([y for curve in panel.curves for y in curve.y], _HEIGHT - _BOTTOM, _TOP)
    bottom = (_HEIGHT - _BOTTOM) * _SCALE
    for tick in down.ticks():
        y = down.place(tick)
        draw.line([(_LEFT * _SCALE, y), ((_WIDTH - _RIGHT) * _SCALE, y)], fill=_GRID, width=_SCALE)
        draw.text(((_LEFT - 6) * _SCALE, y), f"{tick:g}", fill=_INK, font=small, anchor="rm")
    for tick in across.ticks():
        x = across.place(tick)
        draw.line([(x, bottom), (x, bottom + 4 * _SCALE)], fill=_INK, width=_SCALE)
        draw.text((x, bottom + 6 * _SCALE), f"{tick:g}", fill=_INK, font=small, anchor="ma")
    middle = (_LEFT + _WIDTH - _RIGHT) // 2 * _SCALE
    draw.text((middle, bottom + 22 * _SCALE), panel.abscissa, fill=_INK, font=small, anchor="ma")
    draw.line([(_LEFT * _SCALE, _TOP * _SCALE), (_LEFT * _SCALE, bottom)], fill=_INK, width=_SCALE)
    draw.line([(_LEFT * _SCALE, bottom), ((_WIDTH - _RIGHT) * _SCALE, bottom)], fill=_INK, width=_SCALE)
    for number, curve in enumerate(panel.curves):
        colour = _COLOURS[number]
        fine = [curve.x[0] * (curve.x[-1] / curve.x[0]) ** (step / 60) for step in range(61)]
        line = [(across.place(x), down.place(max(curve.fit(x), down.low))) for x in fine]
        draw.line(line, fill=colour, width=_SCALE)
        for x, y in zip(curve.x, curve.y, strict=True):
            px, py = across.place(x), down.place(y)
            draw.ellipse([px - 3 * _SCALE, py - 3 * _SCALE, px + 3 * _SCALE, py + 3 * _SCALE], fill=colour)
        draw.text((beside, 27 * _SCALE), curve.label, fill=colour, font=small)
        beside += draw.textlength(curve.label, font=small) + 10 * _SCALE
    return picture


class _Axis:
    """Logarithmic, a decade long at least; values to places along one side of the picture, in its own pixels."""

    def __init__(self, values: Sequence[float], start: int, stop: int) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.06 * (high - low), 0.5 * (1.0 - (high - low)))
        self._low, self._high = low - room, high + room
        self._start, self._stop = start, stop
        self.low = 10.0**self._low

    def place(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return (self._start + share * (self._stop - self._start)) * _SCALE

    def ticks(self) -> list[float]:
        """1, 2, 5 times powers of ten; whole powers alone where the axis is long."""
        factors = (1, 2, 5) if self._high - self._low < 2.5 else (1,)
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        return [tick for tick in ticks if self._low <= math.log10(tick) <= self._high]
