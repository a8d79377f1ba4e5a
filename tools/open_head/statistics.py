"""Alignment and principal components."""

from __future__ import annotations

import numpy as np


def similarity(points: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that best map points onto target (Umeyama 1991). [N, 3] each."""
    mean_p, mean_t = points.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - mean_t).T @ (points - mean_p))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((s * sign).sum() / ((points - mean_p) ** 2).sum())
    return scale, rotation, mean_t - scale * rotation @ mean_p


def align(heads: np.ndarray, region: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Similarity-align heads [N, V, 3] to their mean on the vertices `region`; the mean keeps its size and place."""
    aligned = heads.astype(np.float64)
    for _ in range(rounds):
        mean = aligned.mean(0)[region]
        for k, head in enumerate(aligned):
            scale, rotation, shift = similarity(head[region], mean)
            aligned[k] = scale * head @ rotation.T + shift
    return aligned


def principal_components(samples: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, basis scaled by standard deviations and the share of variance held. samples [N, D] -> [D], [count, D].

    Each component is turned so that its largest entry is positive.
    """
    mean = samples.mean(0)
    centred = samples - mean
    gram = centred @ centred.T / len(samples)
    variance, vectors = np.linalg.eigh(gram)
    order = np.argsort(variance)[::-1][:count]
    directions = vectors[:, order].T @ centred / np.sqrt(variance[order] * len(samples))[:, None]
    largest = directions[np.arange(count), np.abs(directions).argmax(1)]
    directions *= np.sign(largest)[:, None]
    return mean, directions * np.sqrt(variance[order])[:, None], float(variance[order].sum() / variance.sum())
