"""Where the charts of a UV unwrap lie in the unit square, symmetrically about u = 0.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MARGIN = 0.004
_LARGEST_DISC = 0.06
_GRID = 512


@dataclass(frozen=True)
class Chart:
    """A piece of surface: its label, that of its mirror partner (its own on the midline), its area and mean x."""

    label: int
    partner: int
    area: float
    side: float


@dataclass(frozen=True)
class Place:
    """A chart's outline |x|^exponent + |y|^exponent = 1, scaled by `half_size` about `centre`.

    symmetric: the chart is its own mirror image. mirrors: the chart whose outline, mirrored, this one takes.
    """

    label: int
    centre: tuple[float, float]
    half_size: tuple[float, float]
    exponent: float
    symmetric: bool
    mirrors: int | None = None


def arrange(charts: list[Chart]) -> list[Place]:
    """Place charts, largest first; the first is the main one, the others become discs.

    The main chart fills the square but for its rounded corners, where left-right pairs of discs go. Discs that are
    their own mirror image stand in a column at the bottom, for which the main chart makes room. Of a pair the left one
    comes first.
    """
    main, others = charts[0], charts[1:]
    pairs = [chart for chart in others if chart.partner not in (chart.label, main.label) and chart.side > 0]
    paired = {label for chart in pairs for label in (chart.label, chart.partner)}
    midline = [chart for chart in others if chart.label not in paired]
    strip = 2 * _LARGEST_DISC if midline else 0.0
    half = (0.5 - MARGIN, 0.5 * (1 - strip) - MARGIN)
    centre = (0.5, 0.5 * (1 + strip))
    exponent = 2.4 if pairs else 4.0
    places = [Place(main.label, centre, half, exponent, True)]
    for row, chart in enumerate(midline):
        cell = strip / len(midline)
        radius = cell / 2 - MARGIN
        places.append(Place(chart.label, (0.5, (row + 0.5) * cell), (radius, radius), 2.0, True))
    column, row_index = np.meshgrid(np.arange(_GRID), np.arange(_GRID))
    u, v = (column + 0.5) / _GRID, (row_index + 0.5) / _GRID
    room = _distance_outside(places[0], u, v)
    for place in places[1:]:
        room = np.minimum(room, np.hypot(u - place.centre[0], v - place.centre[1]) - place.half_size[0])
    for edge in (1 - u, v, 1 - v, u - 0.5):
        room = np.minimum(room, edge)
    corner = np.minimum(np.hypot(1 - u, v), np.hypot(1 - u, 1 - v) + 0.01)
    largest = max((chart.area for chart in pairs), default=1.0)
    for chart in pairs:
        radius = _LARGEST_DISC * max((chart.area / largest) ** 0.5, 0.4)
        while not (room >= radius + MARGIN).any():
            radius *= 0.9
        best = int(np.where(room >= radius + MARGIN, corner, np.inf).argmin())
        at_u, at_v = float(u.flat[best]), float(v.flat[best])
        room = np.minimum(room, np.hypot(u - at_u, v - at_v) - radius)
        places.append(Place(chart.label, (at_u, at_v), (radius, radius), 2.0, False))
        places.append(Place(chart.partner, (1 - at_u, at_v), (radius, radius), 2.0, False, mirrors=chart.label))
    return places


def _distance_outside(place: Place, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """About the distance to the outline, positive outside (value over gradient of the implicit function)."""
    x, y = np.abs(u - place.centre[0]) / place.half_size[0], np.abs(v - place.centre[1]) / place.half_size[1]
    power = place.exponent
    value = (x**power + y**power) ** (1 / power)
    scale = np.maximum(value, 1e-6) ** (1 - power)
    gradient = np.hypot(x ** (power - 1) * scale / place.half_size[0], y ** (power - 1) * scale / place.half_size[1])
    return (value - 1) / np.maximum(gradient, 1e-6)
