"""What a prior's networks do to crops whose truth is known: how well codes hold them, and whether spoilt ones come nearer.

Errors are of linear values inside the skin; of normals, of unit vectors in the mesh's tangent frames, so that the mesh's own
normals are no merit. Intervals are over subjects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from benchmarks.crop_metrics import (
    Interval,
    bootstrap,
    degrees,
    flat,
    frame_psnr,
    gain,
    low_pass,
    scaled,
    skill,
    squares,
)
from benchmarks.prior_crops import MAPS, Subject
from nextface.color import luminance
from nextface.config import OptimConfig
from nextface.prior.checkpoint import read_notes
from nextface.prior.crops import masked
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS, FusedNet
from nextface.prior.projection import Answer, Projection
from nextface.prior.quantizer import perplexity

JUDGED = ("diffuse", "specular", "roughness")
SKILL_BOUNDS = {"A": 0.6, "B": 0.4}
LOW_PASS_BOUNDS = {"A": 0.5, "B": 0.0}
"""Decibels by which the shaded albedo's low-pass error must fall at least."""
PULLED, LOW = 2, 8
"""Blocks of pixels over which errors are averaged: the finest that the maps stage pulls, and a code's."""
GROUPS = {"light": (28.0, math.inf), "brown": (-30.0, 28.0), "dark": (-math.inf, -30.0)}
"""Typology angles, degrees, above the first and up to the second."""


@dataclass(frozen=True)
class Coder:
    """A prior's network, whatever stage it comes from. routed: crops go to the codebook of their domain, not through the fusion"""

    projection: Projection
    routed: bool

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Coder:
        """Raises InputError, ConfigError."""
        projection = Projection.read(path, device)
        return cls(projection, isinstance(projection.net, FusedNet) and read_notes(path).get("stage") == "stage2")

    @property
    def encoding(self) -> Encoding:
        return self.projection.encoding

    def project(self, domain: str, crops: Tensor) -> Tensor:
        """Encoded crops to what the codes say of them. [N, 3, S, S]"""
        net = self.projection.net
        if not self.routed:
            return self.projection(crops)
        with torch.no_grad():
            return net.decode(net.codebook(domain)(net.encode(crops)).codes)  # type: ignore[operator]

    def answer(self, domain: str, crops: Tensor) -> Answer:
        """What the maps stage would be told of encoded crops. [N, 3, S, S]"""
        if not self.routed:
            return self.projection.answer(crops)
        held = self.project(domain, crops)
        return Answer(held, held)

    def cleaned(self, subject: Subject, domain: str, values: Tensor) -> Tensor:
        """Linear crops as the maps stage makes them follow the prior: of the albedo the pattern of the answer, in the crops' tone but
        for its share of the tint. [N, C, S, S]"""
        answer = self.answer(domain, subject.encoded(self.encoding, domain, values))
        cleaned, plain = (self.encoding.decode(domain, each) for each in answer)
        if domain != "diffuse":
            return cleaned
        means = [(subject.skin * each).sum((0, 2, 3)) for each in (values, cleaned, plain)]
        gains = means[2] / means[0]
        tint = (gains / luminance(gains)) ** OptimConfig().prior_tint  # how bright is not compared
        return cleaned * (means[0] / means[1] * tint)[:, None, None]

    def codes(self, domain: str, crops: Tensor) -> dict[str, Tensor]:
        """Indices that crops get in the codebooks that matter to their domain. int64 [N, h, w]"""
        net = self.projection.net
        with torch.no_grad():
            latent = net.encode(crops)
            names = (DOMAINS[0], domain) if isinstance(net, FusedNet) else DOMAINS[:1]
            return {
                name: (net.codebook(name) if isinstance(net, FusedNet) else net.quantize).nearest(latent)
                for name in names
            }


@dataclass(frozen=True)
class Held:
    """How well codes hold one domain of a set. skill: pooled over all pixels, and averaged over crops; low_8, low_16: skill of
    the truth's own low-pass; rms: linear, degrees for normals; frame: PSNR of whole encoded crops, mid-grey off the head, dB, and
    that of a flat colour on the head; codes: in use, by codebook"""

    domain: str
    group: str
    subjects: int
    skill: Interval
    by_crop: float
    low_8: float
    low_16: float
    rms: float
    frame: float
    flat_frame: float
    codes: dict[str, float]


@dataclass(frozen=True)
class Denoised:
    """What the projection does to spoilt crops of one domain. before, after: rms errors, linear, degrees for normals; overall,
    pulled, low: decibels by which errors fall, of pixels and of means over `PULLED` and `LOW` pixels"""

    domain: str
    group: str
    subjects: int
    before: float
    after: float
    overall: Interval
    pulled: Interval
    low: Interval


def reconstruction(coder: Coder, subjects: Sequence[Subject]) -> list[Held]:
    """Of photos and clean maps; the albedo for groups of skin tone as well."""
    rows = []
    for domain in DOMAINS:
        sums = _Sums()
        frames: list[tuple[float, float]] = []
        counts: dict[str, Tensor] = {}
        for subject in subjects:
            clean = subject.clean(domain)
            given = subject.encoded(coder.encoding, domain, clean)
            answer = coder.project(domain, given)
            truth, skin = subject.compared(domain, clean), subject.skin
            made = subject.compared(domain, coder.encoding.decode(domain, answer))
            candidates = {"made": made, "flat": _unit(domain, flat(truth, skin).expand_as(truth))}
            candidates |= {f"low_{n}": _unit(domain, low_pass(truth, skin, n)) for n in (8, 16)}
            sums.add(subject, {name: squares(each, truth, skin) for name, each in candidates.items()})
            whole = masked(answer, subject.known(domain))
            frames.append((frame_psnr(whole, given), frame_psnr(_silhouette(given, subject.covered), given)))
            for name, indices in coder.codes(domain, given).items():
                book = coder.projection.net
                size = book.settings.codes
                on_skin = avg_pool2d(skin, skin.shape[-1] // indices.shape[-1])[:, 0] > 0.5
                counts[name] = counts.get(name, 0) + torch.bincount(indices[on_skin], minlength=size)
        codes = {name: float(perplexity(count)) for name, count in counts.items()}
        psnr, flat_psnr = torch.tensor(frames).mean(0).tolist()
        for group, chosen in sums.groups(domain):
            errors, flats = chosen["made"], chosen["flat"]
            rows.append(
                Held(
                    domain=domain,
                    group=group,
                    subjects=len(errors),
                    skill=bootstrap(skill, errors, flats),
                    by_crop=float((1.0 - errors / flats.clamp_min(1e-12)).mean()),
                    low_8=float(skill(chosen["low_8"], flats)),
                    low_16=float(skill(chosen["low_16"], flats)),
                    rms=_root(domain, errors, chosen["pixels"]),
                    frame=psnr,
                    flat_frame=flat_psnr,
                    codes=codes,
                )
            )
    return rows


def denoising(coder: Coder, subjects: Sequence[Subject]) -> list[Denoised]:
    """Of spoilt maps. The albedo gets one scale per crop, its brightness being the light's matter."""
    rows = []
    for domain in MAPS:
        sums = _Sums()
        for subject in subjects:
            truth, skin = subject.compared(domain, subject.clean(domain)), subject.skin
            spoilt = subject.spoilt(domain)
            pair = [subject.compared(domain, each) for each in (spoilt, coder.cleaned(subject, domain, spoilt))]
            if domain == "diffuse":
                pair = [scaled(each, truth, skin) for each in pair]
            sums.add(
                subject,
                {
                    f"{kind} {factor}": squares(each, truth, skin, factor)
                    for kind, each in zip(("before", "after"), pair, strict=True)
                    for factor in (1, PULLED, LOW)
                },
            )
        for group, chosen in sums.groups(domain):
            gains = [bootstrap(gain, chosen[f"before {n}"], chosen[f"after {n}"]) for n in (1, PULLED, LOW)]
            roots = [_root(domain, chosen[f"{kind} 1"], chosen["pixels"]) for kind in ("before", "after")]
            rows.append(Denoised(domain, group, len(chosen["pixels"]), *roots, *gains))
    return rows


def weights(rows: Sequence[Denoised]) -> dict[str, int]:
    """1 for the domains whose projection brings spoilt maps nearer to the truth, 0 for the others."""
    return {row.domain: int(row.overall.value > 0.0) for row in rows if row.group == "all" and row.domain in MAPS}


def as_notes(rows: Sequence[Held] | Sequence[Denoised]) -> list[dict[str, object]]:
    """As JSON values."""
    return [asdict(row) for row in rows]


def verdict(name: str, value: float, bound: float) -> str:
    """A figure beside the bound that it should reach, in a line."""
    met = "met" if value >= bound else f"MISSED by {bound - value:.3f}"
    return f"{name}: {value:.3f}, bound {bound}: {met}"


class _Sums:
    """Sums over each crop's pixels by name, and the tones of the subjects."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Tensor]] = {}
        self.tones: list[float] = []

    def add(self, subject: Subject, sums: dict[str, Tensor]) -> None:
        self.tones.append(subject.tone)
        for name, each in (sums | {"pixels": subject.skin.sum((1, 2, 3))}).items():
            self.parts.setdefault(name, []).append(each.double())

    def groups(self, domain: str) -> list[tuple[str, dict[str, Tensor]]]:
        """All subjects, and for the albedo those of each tone. [M, N] by name"""
        table = {name: torch.stack(each) for name, each in self.parts.items()}
        found = [("all", table)]
        tones = torch.tensor(self.tones)
        for name, (low, high) in GROUPS.items() if domain == "diffuse" else ():
            rows = (tones > low) & (tones <= high)
            if int(rows.sum()) > 1:
                found.append((name, {part: each[rows] for part, each in table.items()}))
        return found


def _unit(domain: str, values: Tensor) -> Tensor:
    return normalize(values, dim=1) if domain == "normal" else values


def _silhouette(given: Tensor, covered: Tensor) -> Tensor:
    """Encoded crops with one colour on the head."""
    return torch.lerp(given, flat(given, covered).expand_as(given), covered)


def _root(domain: str, errors: Tensor, pixels: Tensor) -> float:
    """Root mean square over all pixels. Squares are averaged over channels: of a vector, that is a third of its length's."""
    mean = float(errors.sum() / pixels.sum())
    return degrees(math.sqrt(3.0 * mean)) if domain == "normal" else math.sqrt(mean)
