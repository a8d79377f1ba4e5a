"""Landmarks from a file: JSON, NPY or pts, in pixels of the upright full frame."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextface.errors import InputError
from nextface.landmarks.points import POINT_COUNTS, Landmarks


def read_landmarks(path: Path | str) -> Landmarks:
    """One face's landmarks.

    .json: a list of [x, y] or {"x": …, "y": …}, or an object that holds it as "points" or "landmarks", with an optional
        "convention"; .npy: an array [N, 2] or more columns, of which the first two count; .pts: ibug's format, whose pixels
        count from 1. Elsewhere the frame's upper left corner is (0, 0). 478 or 468 points are MediaPipe's, 68 are ibug's 2D
        points; a point that is null or not finite is left out.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            points, convention = np.load(path, allow_pickle=False), None
        elif path.suffix.lower() == ".pts":
            points, convention = _parse_pts(path.read_text(encoding="utf-8", errors="replace")), None
        elif path.suffix.lower() == ".json":
            points, convention = _parse_json(json.loads(path.read_text(encoding="utf-8-sig")))
        else:
            raise InputError(f"{path}: landmarks are read from .json, .npy or .pts files")
        points = np.asarray(points, np.float64)
    except OSError as error:
        raise InputError(f"{path}: the landmarks cannot be read ({error.strerror or error}); check the path") from error
    except (ValueError, TypeError, LookupError, EOFError) as error:
        raise InputError(f"{path}: not a landmark file ({error}); see the docs for JSON, NPY and pts") from error
    points = points.squeeze(0) if points.ndim == 3 and points.shape[0] == 1 else points
    if points.ndim != 2 or points.shape[1] < 2:
        raise InputError(f"{path}: holds an array of shape {points.shape}; landmarks are N rows of x, y")
    points = points[:, :2]
    kinds = [convention] if convention else ["mediapipe", "ibug68"]
    fitting = [kind for kind in kinds if len(points) in POINT_COUNTS.get(kind, ())]
    if not fitting:
        raise InputError(
            f"{path}: holds {len(points)} points{f' of {convention!r}' if convention else ''}; "
            "give 478 or 468 (mediapipe) or 68 (ibug68, fan)"
        )
    known = np.isfinite(points).all(1)
    if known.sum() < 6:
        raise InputError(f"{path}: only {known.sum()} of its points have a place; at least 6 are needed")
    spread = np.ptp(points[known], 0).max()
    if spread <= 2.0:
        raise InputError(f"{path}: its points span {spread:.2g} pixels; give pixels of the full frame, not 0..1")
    return Landmarks(
        convention=fitting[0],
        index=torch.from_numpy(np.flatnonzero(known)),
        points=torch.from_numpy(points[known].astype(np.float32)),
        confidence=torch.ones(int(known.sum())),
    )


def _parse_json(content: Any) -> tuple[list[list[float]], str | None]:
    convention = None
    if isinstance(content, dict):
        convention = content.get("convention")
        if "points" not in content and "landmarks" not in content:
            raise ValueError("it has neither 'points' nor 'landmarks'")
        content = content.get("points", content.get("landmarks"))
    if not isinstance(content, list):
        raise ValueError("its points are not a list")
    return [_point(point) for point in content], convention


def _point(point: Any) -> list[float]:
    if point is None:
        return [np.nan, np.nan]
    pair = (point["x"], point["y"]) if isinstance(point, dict) else (point[0], point[1])
    return [np.nan if value is None else float(value) for value in pair]


def _parse_pts(text: str) -> list[list[float]]:
    match = re.search(r"\{([^}]*)\}", text)
    if match is None:
        raise ValueError("it has no { block }")
    rows = [line.split() for line in match.group(1).splitlines() if line.strip()]
    return [[float(row[0]) - 0.5, float(row[1]) - 0.5] for row in rows]
