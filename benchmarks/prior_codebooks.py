"""Codebooks for each domain against one for all, at equal updates, and against one with as many codes as all of them together.

Usage: python -m benchmarks.prior_codebooks [--folder output/prior_codebooks] [--steps 600] [--seeds 0 1 2] [--processes 2]

Small networks on crops of 64 pixels. For each seed a network with one codebook is trained for so many steps; from there it goes
on for as many, either with the one codebook ("joint") or with each crop sent through its domain's ("domains"). The third, "wide",
has one codebook of five times the codes from the start. The arms of a seed see the same crops in the same order at the same rates.
Prints the skill of the reconstruction on people of generators A and B that no training saw. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.crop_metrics import Interval, bootstrap, flat, skill, squares
from benchmarks.prior_crops import B_TEST, Subject, trained_faces, unseen_faces
from benchmarks.prior_measures import Coder
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.settings import AutoencoderSettings, FusionSettings
from nextface.prior.train.loop import OpenSource, train
from nextface.prior.train.sizes import SMALL, Sizes
from nextface.prior.train.stages import Start
from nextface.train_config import TrainSettings

CODES = 128
NETWORK = AutoencoderSettings(
    image_size=64,
    width=16,
    multipliers=(1, 2, 2, 4),
    res_blocks=1,
    attention_sizes=(8,),
    codes=CODES,
    code_channels=32,
    norm_groups=8,
)
SIZES = replace(SMALL, autoencoder=NETWORK, fusion=FusionSettings(stacks=1, layers=2, heads=4, mask_size=8))
ARMS = ("joint", "domains", "wide")
HEADS, BATCH = 48, 16
RATES = ((6e-4, 3e-4), (5e-4, 3e-5))
"""Learning rates at the start and end of both legs of a run."""
_APART = 10**6
"""Batches between the streams of different legs and seeds."""


def run_chains(chains: Sequence[tuple[int, bool]], steps: int, folder: Path) -> None:
    """Train the arms of some chains one after the other on one bank of heads. chains: seed, and whether it is the wide one"""
    torch.set_num_threads(1)
    encoding = Encoding(image_size=NETWORK.image_size, norm_groups=NETWORK.norm_groups)
    model = read_open_head(default_model_folder() / "open_head.h5")
    bank = GeneratedFaces(model, FacesSettings(BATCH, identities=HEADS), encoding)
    for seed, wide in chains:
        base = folder / f"{'wide' if wide else 'one'}_{seed}"
        sizes = folder / f"sizes_{base.name}.json"
        codes = CODES * len(DOMAINS) if wide else CODES
        sizes.write_text(
            json.dumps(replace(SIZES, autoencoder=replace(NETWORK, codes=codes)).notes()), encoding="utf-8"
        )
        first = _train("stage1", seed, 0, steps, base, bank, sizes=str(sizes))
        for arm in ARMS[2:] if wide else ARMS[:2]:
            stage = "stage2" if arm == "domains" else "stage1"
            _train(stage, seed, 1, steps, arm_folder(folder, arm, seed), bank, Start((first,)))


def arm_folder(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{arm}_final_{seed}"


def _train(
    stage: str,
    seed: int,
    leg: int,
    steps: int,
    output: Path,
    bank: GeneratedFaces,
    start: Start | None = None,
    sizes: str = "",
) -> Path:
    rate, final_rate = RATES[leg]
    settings = replace(
        TrainSettings.of(stage, "small"),
        sizes=sizes,
        seed=seed,
        iterations=steps,
        batch=BATCH,
        learning_rate=rate,
        final_rate=final_rate,
        device="cpu",
        precision="bfloat16",
        sample_every=0,
    )
    return train(stage, settings, output, start, source=_stream(bank, 2 * seed + leg))


def _stream(bank: GeneratedFaces, number: int) -> OpenSource:
    def source(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> GeneratedFaces:
        faces = bank.anew(bank.settings)
        faces.load_state_dict({"number": torch.tensor(number * _APART)})
        return faces

    return source


def shared_out(seeds: Sequence[int], processes: int) -> list[list[tuple[int, bool]]]:
    """Chains for each process, about equally long: a chain of one codebook has three legs, a wide one two."""
    shares: list[list[tuple[int, bool]]] = [[] for _ in range(processes)]
    for chain in [(seed, False) for seed in seeds] + [(seed, True) for seed in seeds]:
        min(shares, key=lambda share: sum(2 if wide else 3 for _, wide in share)).append(chain)
    return [share for share in shares if share]


def compared(folder: Path, seeds: Sequence[int], subjects: Sequence[Subject]) -> dict[str, Any]:
    """By domain: each arm's skill for each seed, and by how much the domains' codebooks are better than the other arms, with
    intervals over the subjects of the mean over seeds."""
    coders = {arm: [_coder(folder, arm, seed) for seed in seeds] for arm in ARMS}
    found: dict[str, Any] = {}
    for domain in DOMAINS:
        flats = torch.stack([_errors(None, subject, domain) for subject in subjects])
        errors = {
            arm: [torch.stack([_errors(coder, subject, domain) for subject in subjects]) for coder in each]
            for arm, each in coders.items()
        }
        found[domain] = {
            "skill": {arm: [float(skill(each, flats)) for each in per_seed] for arm, per_seed in errors.items()},
            "better": {other: difference(errors["domains"], errors[other], flats) for other in (ARMS[0], ARMS[2])},
        }
    return found


def difference(ours: Sequence[Tensor], others: Sequence[Tensor], flats: Tensor) -> Interval:
    """Skill of some arm above another's, averaged over seeds. [M, N] for each seed, and of the best colours"""
    count = len(ours)

    def gap(flats: Tensor, *errors: Tensor) -> Tensor:
        skills = [skill(each, flats) for each in errors]
        return torch.stack(skills[:count]).mean(0) - torch.stack(skills[count:]).mean(0)

    return bootstrap(gap, flats, *ours, *others)


def _coder(folder: Path, arm: str, seed: int) -> Coder:
    return Coder.read(arm_folder(folder, arm, seed) / "weights.safetensors", torch.device("cpu"))


def _errors(coder: Coder | None, subject: Subject, domain: str) -> Tensor:
    """Summed squares of each crop, of the best colour where there is no coder. [N]"""
    truth, skin = subject.compared(domain, subject.clean(domain)), subject.skin
    if coder is None:
        colour = flat(truth, skin).expand_as(truth)
        return squares(colour, truth, skin)
    answer = coder.project(domain, subject.encoded(coder.encoding, domain, subject.clean(domain)))
    return squares(subject.compared(domain, coder.encoding.decode(domain, answer)), truth, skin)


def table(found: dict[str, Any]) -> str:
    lines = ["| domain | " + " | ".join(ARMS) + " | domains − joint, 95% | domains − wide, 95% |", "|---" * 6 + "|"]
    for domain, each in found.items():
        cells = []
        for arm in ARMS:
            skills = torch.tensor(each["skill"][arm])
            spread = float(skills.std()) if len(skills) > 1 else 0.0
            cells.append(f"{float(skills.mean()):.3f} ± {spread:.3f}")
        gaps = [each["better"][other].text(3) for other in (ARMS[0], ARMS[2])]
        lines.append(f"| {domain} | {' | '.join(cells + gaps)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("output/prior_codebooks"))
    parser.add_argument("--steps", type=int, default=600, help="of each leg")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--unseen", type=int, default=len(B_TEST), help="people of B")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    shares = shared_out(arguments.seeds, arguments.processes)
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        pool.starmap(run_chains, [(share, arguments.steps, arguments.folder) for share in shares], chunksize=1)
    model = read_open_head(default_model_folder() / "open_head.h5")
    encoding = _coder(arguments.folder, ARMS[0], arguments.seeds[0]).encoding
    sets = {
        "A": trained_faces(model, encoding),
        "B": list(unseen_faces(model, encoding, B_TEST[: arguments.unseen], arguments.folder / "crops")),
    }
    results = {}
    print(
        f"skill, mean ± spread over seeds {arguments.seeds}; {arguments.steps} + {arguments.steps} steps of {BATCH} crops"
    )
    for name, subjects in sets.items():
        found = compared(arguments.folder, arguments.seeds, subjects)
        print(f"\n{name}, {len(subjects)} people\n\n{table(found)}")
        results[name] = {
            domain: each | {"better": {other: vars(gap) for other, gap in each["better"].items()}}
            for domain, each in found.items()
        }
    (arguments.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
