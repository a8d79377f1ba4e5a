"""Fit the skin maps of unseen faces without the prior, with it, and pulled to the mean of the people that the prior learns from; compare
them with the truth.

Usage: python -m benchmarks.prior_maps --out FOLDER --prior FILE [--photos 0 32] [--subjects 32 40] [--arms none prior mean truth]
                                       [--weights 0.3 1 1 1] [--tint 0.7] [--mean-weights 1 1 1 1] [--mean-tint 0.7] [--mode uv]
                                       [--summary]
       python -m benchmarks.prior_maps --out FOLDER --prior FILE --tune [--photos 100 108] [--factors 0.3 1 3 10]

--photos are single photos, --subjects people that are seen under three lights each. Photos 0 to 31 and subjects 32 to 39 are the
test, from 100 on the weights are tuned. Weights are of diffuse, specular, roughness and normal.

Pose and statistical stages run once per photo (`benchmarks.shared_scenes`); what was measured is kept, a line of JSON per photo
and arm, and not measured again. So a call can be stopped and repeated, several calls can share a folder as long as their photos
differ, and --summary prints the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import map_tables, metrics
from benchmarks.fidelity import face_texels
from benchmarks.map_arms import KINDS, ONES, TINT, USUAL, Arm, fitted
from benchmarks.map_scores import Spread, map_score, photo_residual, shown_skin, spread
from benchmarks.map_tables import Row
from benchmarks.shared_scenes import CONFIG, SharedScene, photo_name, unseen_scene
from benchmarks.unseen.faces import LIGHTS
from nextface.config import OptimConfig
from nextface.morphable import MorphableModel, load_model
from nextface.scene import Scene

TEST, SUBJECTS, VALIDATION = (0, 32), (32, 40), (100, 108)
FACTORS = (0.3, 1.0, 3.0, 10.0)
TINTS = (0.0, 0.35, 0.7)
NOTHING = Arm("none")


@dataclass
class Bench:
    """What is measured, and where it is kept.

    folder: of the results; scenes: of the shared scenes; prior: the checkpoint, None to do without; settings: of the maps stage
    """

    model: MorphableModel
    folder: Path
    scenes: Path
    prior: Path | None
    settings: OptimConfig = CONFIG
    _face: Tensor | None = field(default=None, repr=False)

    @property
    def face(self) -> Tensor:
        if self._face is None:
            self._face = face_texels(self.model, self.settings.texture_resolution)
        return self._face

    def row(self, photo: str, arm: Arm) -> Row | None:
        """What was measured before."""
        path, needs = self._lines(photo), arm.needs(self.prior)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        return next((row for row in rows if (row["arm"], row["needs"]) == (str(arm), needs)), None)

    def rows(self, photos: Sequence[str], arm: Arm) -> list[Row] | None:
        """Of all photos; None where one is missing."""
        found = [row for photo in photos if (row := self.row(photo, arm)) is not None]
        return found if len(found) == len(photos) else None

    def measure(self, number: int, light: int | None, arms: Sequence[Arm]) -> None:
        """Fit one photo in all ways that were not measured before."""
        name = photo_name(number, light)
        missing = [arm for arm in arms if self.row(name, arm) is None]
        if missing:
            shared = unseen_scene(self.model, self.scenes, number, light)
            for arm in missing:
                self._measure(shared, arm, light is not None)

    def _measure(self, shared: SharedScene, arm: Arm, keep: bool) -> None:
        scene, seconds = fitted(shared, arm, self.model, self.prior, self.settings)
        residual = photo_residual(scene, shared.observation, self.model, self.settings.self_shadowing)
        assert scene.maps is not None and shared.truth is not None and shared.truth.maps is not None
        score = map_score(scene.maps, shared.truth.maps, self.face, residual)
        if keep:
            self._keep(shared, arm, scene)
        head = {"photo": shared.name, "arm": str(arm), "needs": arm.needs(self.prior)}
        row = {**head, "tone": shared.tone, "light": shared.light, "seconds": seconds, **score.values()}
        path = self._lines(shared.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{shared.name} {arm}: albedo {score.albedo:.2f} dB, specular {score.specular:.4f}, roughness", end=" ")
        print(f"{score.roughness:.4f}, normal {score.normal:.3f}°, residual {score.residual:.5f}", flush=True)

    def _keep(self, shared: SharedScene, arm: Arm, scene: Scene) -> None:
        """The albedo at the truth's scale, and which of it the photo shows."""
        assert scene.maps is not None and shared.truth is not None and shared.truth.maps is not None
        shown = shown_skin(scene.maps, self.face)
        found, true = (maps.image("diffuse")[0] for maps in (scene.maps, shared.truth.maps))
        scaled = found * metrics.best_scale(found[shown], true[shown])
        path = self._albedo(shared.name, arm)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"albedo": scaled.half(), "shown": shown}, path)

    def spread(self, subjects: Sequence[int], arm: Arm) -> Spread:
        """Of the people whose photos under all lights were measured."""
        kept = [
            [load_file(self._albedo(photo_name(number, light), arm)) for light in range(LIGHTS)] for number in subjects
        ]
        some = torch.stack([each["shown"] for photos in kept for each in photos]).any(0)
        albedo = torch.stack([torch.stack([each["albedo"][some].float() for each in photos]) for photos in kept])
        return spread(
            albedo, torch.stack([torch.stack([each["shown"][some] for each in photos]).all(0) for photos in kept])
        )

    def _lines(self, photo: str) -> Path:
        return self.folder / "rows" / f"{photo}.jsonl"

    def _albedo(self, photo: str, arm: Arm) -> Path:
        return self.folder / "albedo" / f"{photo} {arm} {arm.needs(self.prior)}.safetensors".replace(" ", "_")


def summary(bench: Bench, photos: Sequence[int], subjects: Sequence[int], arms: Sequence[Arm]) -> str:
    """The tables of everything that is complete."""
    parts = []
    names = [photo_name(number) for number in photos]
    rows = {arm: found for arm in arms if names and (found := bench.rows(names, arm)) is not None}
    by_kind = {arm.kind: found for arm, found in rows.items()}
    if rows:
        parts += [f"## {len(names)} photos", map_tables.means({str(arm): found for arm, found in rows.items()})]
    if "prior" in by_kind and "none" in by_kind:
        parts.append(map_tables.verdicts(by_kind["prior"], by_kind["none"], by_kind.get("mean")))
        parts.append(f"photo residual: {map_tables.residual_change(by_kind['prior'], by_kind['none']).text('+.1%')}")
    names = [photo_name(number, light) for number in subjects for light in range(LIGHTS)]
    lit = {arm: found for arm in arms if names and (found := bench.rows(names, arm)) is not None}
    if NOTHING in lit:
        parts.append(f"## {len(subjects)} people under {LIGHTS} lights")
        parts.append(map_tables.means({str(arm): found for arm, found in lit.items()}))
        spreads = {arm.kind: bench.spread(subjects, arm) for arm in lit}
        parts.append(map_tables.lights(spreads, {arm.kind: found for arm, found in lit.items()}))
    return "\n\n".join(parts) or "nothing is complete yet"


def tune(bench: Bench, photos: Sequence[int], kinds: Sequence[str], factors: Sequence[float], mode: str) -> None:
    """Try common weights, take the best of each domain by its own measure, and with these the tint that is best for the albedo."""
    names = [photo_name(number) for number in photos]

    def measured(arm: Arm) -> list[Row]:
        for number in photos:
            bench.measure(number, None, [arm])
        found = bench.rows(names, arm)
        assert found is not None
        return found

    for kind in kinds:
        grid = {0.0: NOTHING} | {factor: Arm(kind, (factor,) * len(ONES), mode) for factor in factors}
        tried = {factor: measured(arm) for factor, arm in grid.items()}
        weights = map_tables.best_weights(tried)
        tinted = [Arm(kind, weights, mode, tint) for tint in TINTS]
        by_albedo = {arm: map_tables.column(measured(arm), "albedo").mean() for arm in tinted}
        best = max(tinted, key=lambda arm: by_albedo[arm])
        print(map_tables.means({str(arm): measured(arm) for arm in (*grid.values(), *tinted)}))
        print(f"best of {kind}: weights {' '.join(format(weight, 'g') for weight in weights)}, tint {best.tint:g}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("output/prior_maps"))
    parser.add_argument("--scenes", type=Path, help="of the shared scenes, OUT/scenes if left out")
    parser.add_argument("--prior", type=Path, help="checkpoint; may be left out with --arms none")
    parser.add_argument("--photos", type=int, nargs=2, metavar=("FIRST", "END"))
    parser.add_argument("--subjects", type=int, nargs=2, metavar=("FIRST", "END"))
    parser.add_argument("--arms", nargs="+", choices=KINDS)
    parser.add_argument("--weights", type=float, nargs=4, default=USUAL, help="of the prior")
    parser.add_argument("--mean-weights", type=float, nargs=4, default=ONES, help="of the pull to the mean")
    parser.add_argument("--tint", type=float, default=TINT, help="share of the prior's")
    parser.add_argument("--mean-tint", type=float, default=TINT, help="share of the mean's")
    parser.add_argument("--mode", choices=("uv", "image"), default="uv")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    parser.add_argument("--summary", action="store_true", help="only print what was measured")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.prior is None and arguments.arms != ["none"]:
        parser.error("--prior FILE is needed for every arm but none")
    model = load_model(CONFIG.path)
    bench = Bench(model, arguments.out, arguments.scenes or arguments.out / "scenes", arguments.prior)
    if arguments.tune:
        kinds = [kind for kind in arguments.arms or ("prior", "mean") if kind != "none"]
        tune(bench, range(*(arguments.photos or VALIDATION)), kinds, arguments.factors, arguments.mode)
        return
    neither = arguments.photos is None and arguments.subjects is None
    photos = range(*(TEST if neither else arguments.photos or (0, 0)))
    subjects = range(*(SUBJECTS if neither else arguments.subjects or (0, 0)))
    weights = {"prior": arguments.weights, "mean": arguments.mean_weights, "truth": arguments.weights}
    kinds = arguments.arms or ["none", "prior", "mean"]
    tints = {"prior": arguments.tint, "mean": arguments.mean_tint, "truth": arguments.tint}
    arms = [
        NOTHING if kind == "none" else Arm(kind, tuple(weights[kind]), arguments.mode, tints[kind]) for kind in kinds
    ]
    if not arguments.summary:
        for number in photos:
            bench.measure(number, None, arms)
        for number in subjects:
            for light in range(LIGHTS):
                bench.measure(number, light, arms)
    print(summary(bench, photos, subjects, arms))


if __name__ == "__main__":
    main()
