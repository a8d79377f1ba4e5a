"""Loss curves as small pictures, drawn without a plotting package: importing one would cost more than the whole export."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_SCALE = 2
_WIDTH, _HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 38, 42
_INK, _GRID, _LINE, _PAPER = (51, 56, 64), (226, 229, 233), (31, 111, 180), (255, 255, 255)


def loss_curve(losses: Sequence[float], title: str) -> Image.Image:
    """Loss over iterations, logarithmic where all values are positive and span more than a factor of 3."""
    values = [value for value in losses if math.isfinite(value)]
    picture = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15 * _SCALE), ImageFont.load_default(12 * _SCALE)
    draw.text((_LEFT * _SCALE, 10 * _SCALE), title, fill=_INK, font=font)
    if values:
        logarithmic = min(values) > 0 and max(values) > 3 * min(values)
        _axes_and_line(draw, values, logarithmic, small)
        last = f"last {values[-1]:.4g}"
        draw.text(((_WIDTH - _RIGHT) * _SCALE, 12 * _SCALE), last, fill=_LINE, font=small, anchor="ra")
    return picture.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


def _axes_and_line(
    draw: ImageDraw.ImageDraw,
    values: list[float],
    logarithmic: bool,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    heights = [math.log10(value) for value in values] if logarithmic else values
    low, high = min(heights), max(heights)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    last = max(len(values) - 1, 1)

    def place(iteration: float, level: float) -> tuple[float, float]:
        x = _LEFT + width * iteration / last
        return x * _SCALE, (_TOP + height * (high - level) / (high - low)) * _SCALE

    for tick in _log_ticks(low, high) if logarithmic else _ticks(low, high, 5):
        (left, y), (right, _) = place(0, tick), place(last, tick)
        draw.line([(left, y), (right, y)], fill=_GRID, width=_SCALE)
        label = f"{10**tick:.3g}" if logarithmic else f"{tick:.3g}"
        draw.text((left - 8 * _SCALE, y), label, fill=_INK, font=font, anchor="rm")
    for tick in _ticks(0, len(values) - 1, 6):
        x, bottom = place(tick, low)
        draw.line([(x, bottom), (x, bottom + 4 * _SCALE)], fill=_INK, width=_SCALE)
        draw.text((x, bottom + 7 * _SCALE), f"{tick:g}", fill=_INK, font=font, anchor="ma")
    middle, bottom = place(last / 2, low)
    draw.text((middle, bottom + 22 * _SCALE), "iteration", fill=_INK, font=font, anchor="ma")
    draw.line([place(0, high), place(0, low), place(last, low)], fill=_INK, width=_SCALE)
    points = [place(number, level) for number, level in enumerate(heights)]
    if len(points) == 1:
        x, y = points[0]
        draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=_LINE)
    else:
        draw.line(points, fill=_LINE, width=2 * _SCALE, joint="curve")


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high, at most about `count`."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5 times powers of ten within low..high; only whole powers over more than three decades."""
    factors = (1,) if high - low > 3 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [power + math.log10(factor) for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
