"""Measure the prior's networks on faces that they have not seen, against the bounds that were set for them.

Usage: python -m benchmarks.prior_nets CHECKPOINT [--part reconstruction projection identity] [--folder output/prior_nets]
                                       [--threads N]

reconstruction: how much of clean crops the codes hold, beside one colour, low-passes and the full frame's PSNR; any stage
projection:     whether spoilt maps come nearer to the truth, and the weights of the domains that follow; any stage
identity:       swapped faces and templates; needs the packed file, with identity encoder and templates

A is the training's generator with another seed: other people, heads, noise and lights. B is `benchmarks.unseen`, test
numbers 0 to 31; weights are decided on its numbers 100 to 123. The folder gets results.json, pictures, B's crops (made once,
some ten seconds each) and the second identity encoder (trained once, some minutes).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.prior_crops import B_TEST, B_VALIDATION, MAPS, Subject, trained_faces, unseen_faces
from benchmarks.prior_data import save
from benchmarks.prior_measures import (
    JUDGED,
    LOW_PASS_BOUNDS,
    SKILL_BOUNDS,
    Coder,
    Denoised,
    Held,
    as_notes,
    denoising,
    reconstruction,
    verdict,
    weights,
)
from benchmarks.prior_swap import identity_part
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder

PARTS = ("reconstruction", "projection", "identity")


class Sets:
    """The subjects of each set, made when they are first asked for."""

    def __init__(self, model: MorphableModel, coder: Coder, folder: Path) -> None:
        self.model, self.coder, self.folder = model, coder, folder
        self.made: dict[str, list[Subject]] = {}

    def __getitem__(self, name: str) -> list[Subject]:
        """A, B or validation"""
        if name not in self.made:
            encoding = self.coder.encoding
            numbers = B_VALIDATION if name == "validation" else B_TEST
            self.made[name] = (
                trained_faces(self.model, encoding)
                if name == "A"
                else list(unseen_faces(self.model, encoding, numbers, self.folder / "crops"))
            )
        return self.made[name]


def reconstruction_part(coder: Coder, sets: Sets, folder: Path) -> dict[str, Any]:
    found = {}
    for name in ("A", "B"):
        rows = reconstruction(coder, sets[name])
        print(f"\nReconstruction on {name}\n\n{held_table(rows)}\n")
        for row in rows:
            if row.domain in JUDGED and row.group == "all":
                print(verdict(f"skill of {row.domain} on {name}", row.skill.value, SKILL_BOUNDS[name]))
        save(sheet(coder, sets[name], spoilt=False), folder / f"reconstruction_{name}.png")
        found[name] = as_notes(rows)
    return found


def projection_part(coder: Coder, sets: Sets, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("A", "validation", "B"):
        rows = denoising(coder, sets[name])
        print(f"\nProjection of spoilt maps on {name}\n\n{denoised_table(rows)}\n")
        if name == "validation":
            found["weights"] = weights(rows)
        else:
            low = next(row.low.value for row in rows if row.domain == "diffuse" and row.group == "all")
            print(verdict(f"dB of low-pass error of shaded diffuse on {name}", low, LOW_PASS_BOUNDS[name]))
            save(sheet(coder, sets[name], spoilt=True), folder / f"projection_{name}.png")
        found[name] = as_notes(rows)
    told = " ".join(f"{domain}={weight}" for domain, weight in found["weights"].items())
    print(f"\ndecided on validation, for tools/pack_prior.py: --weights {told}")
    return found


def held_table(rows: Sequence[Held]) -> str:
    head = "| domain | skin | people | skill, 95% | mean of crops | low-pass /8 | /16 | rms | frame dB | flat: frame dB | codes |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        codes = ", ".join(f"{name} {number:.0f}" for name, number in row.codes.items())
        lines.append(
            f"| {row.domain} | {row.group} | {row.subjects} | {row.skill.text()} | {row.by_crop:.2f} | {row.low_8:.2f} | "
            f"{row.low_16:.2f} | {root(row.domain, row.rms)} | {row.frame:.1f} | {row.flat_frame:.1f} | {codes} |"
        )
    return "\n".join(lines)


def denoised_table(rows: Sequence[Denoised]) -> str:
    lines = ["| domain | skin | people | spoilt rms | projected rms | gain dB, 95% | /2 | /8 |", "|---" * 8 + "|"]
    lines += [
        f"| {row.domain} | {row.group} | {row.subjects} | {root(row.domain, row.before)} | {root(row.domain, row.after)} | "
        f"{row.overall.text()} | {row.pulled.text()} | {row.low.text()} |"
        for row in rows
    ]
    return "\n".join(lines)


def root(domain: str, error: float) -> str:
    return f"{error:.1f}°" if domain == "normal" else f"{error:.4f}"


def sheet(coder: Coder, subjects: Sequence[Subject], spoilt: bool) -> Tensor:
    """The lightest, a middle and the darkest person, frontal and from the side, every domain of maps: input, projection and, of
    spoilt crops, the truth. [3, H, W] in 0..1"""
    order = sorted(subjects, key=lambda subject: -subject.tone)
    lines = []
    for subject in (order[0], order[len(order) // 2], order[-1]):
        for view in (0, 1):
            columns = []
            for domain in MAPS:
                clean = subject.encoded(coder.encoding, domain, subject.clean(domain))
                given = subject.encoded(coder.encoding, domain, subject.spoilt(domain)) if spoilt else clean
                answer = coder.answer(domain, given).cleaned if spoilt else coder.project(domain, given)
                column = [given, answer * subject.covered, *([clean] if spoilt else [])]
                columns.append(torch.cat([each[view] for each in column], 1))
            lines.append(torch.cat(columns, 2))
    pairs = [torch.cat(lines[start : start + 2], 2) for start in range(0, len(lines), 2)]
    return torch.cat(pairs, 1) * 0.5 + 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--folder", type=Path, default=Path("output/prior_nets"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = read_open_head(default_model_folder() / "open_head.h5")
    coder = Coder.read(arguments.checkpoint, torch.device("cpu"))
    sets = Sets(model, coder, arguments.folder)
    results: dict[str, Any] = {"checkpoint": arguments.checkpoint.name}
    if "reconstruction" in arguments.part:
        results["reconstruction"] = reconstruction_part(coder, sets, arguments.folder)
    if "projection" in arguments.part:
        results["projection"] = projection_part(coder, sets, arguments.folder)
    if "identity" in arguments.part:
        results["identity"] = identity_part(arguments.checkpoint, model, arguments.folder)
    (arguments.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
