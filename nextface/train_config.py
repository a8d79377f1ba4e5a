"""Settings of a training run: an ini like the fit's, with defaults for each stage. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nextface.errors import ConfigError
from nextface.ini import IniSettings, setting, weight

STAGES = {
    "stage1": "auto-encoder with one codebook, of all domains together",
    "stage2": "a codebook for each domain in one run, from stage 1; with --domain the published run of one domain",
    "fusion": "the network that mixes the codebooks, from stage 2 (or a stage-1 and four stage-2 files)",
    "denoise": "a second encoder that brings spoilt crops back to clean ones, from fusion",
    "identity": "a small encoder of identities",
    "swapper": "decoding with the identity of another face, from fusion, with an identity encoder",
}
"""The stages in their order, with what each trains."""


@dataclass(frozen=True)
class TrainSettings(IniSettings):
    """Everything that a stage's result depends on, besides the data and the checkpoints that it starts from."""

    header: ClassVar[str] = "nextface train-prior settings; every key can also be given on the command line"

    photos: str = setting("", "data", "folder of aligned photos (FFHQ's layout; subfolders are searched)")
    reflectance: str = setting(
        "", "data", "folder with subfolders diffuse, specular, normal, roughness of aligned crops; or flat, see docs"
    )
    people: str = setting(
        "", "data", "folder with a subfolder of aligned photos for each person (VGGFace2-HQ's layout)"
    )
    fits: str = setting(
        "", "data", "folder of fits of generated faces (tools/fit_generated.py), half of the rows of the stage denoise"
    )
    generated: float = weight(
        0.0, "data", "share of the rows that the face generator makes beside folders; without folders it makes all"
    )
    crop: str = setting(
        "tight", "data", "what is seen of a head: crops aligned like the folders', or one picture of its surface laid out (docs/prior.md)",
        choices=("tight", "ffhq", "cylinder", "unwrap"),
    )  # fmt: skip
    masked: float = setting(
        0.5, "data", "share of the folders' crops that get a random mask filled with mid-grey", minimum=0.0, maximum=1.0
    )
    workers: int = setting(4, "data", "threads that read files ahead of the training", minimum=1, maximum=256)

    preset: str = setting(
        "small", "networks", "defaults of sizes and schedules: our small prior or the published one", choices=("small", "published")
    )  # fmt: skip
    sizes: str = setting("", "networks", "JSON file of the networks' sizes for the first stage, empty = the preset's")

    device: str = setting("cuda", "run", "'cuda' or 'cpu'; falls back to cpu with a warning", choices=("cuda", "cpu"))
    threads: int = setting(0, "run", "CPU threads of each process, 0 = all cores", minimum=0, maximum=1024)
    precision: str = setting(
        "float32", "run", "of the networks' arithmetic; weights stay float32", choices=("float32", "bfloat16")
    )
    seed: int = setting(0, "run", "seed of everything random", minimum=0, maximum=2**53)
    iterations: int = setting(20000, "run", "optimiser steps of the stage", minimum=1, maximum=10**8)
    batch: int = setting(8, "run", "crops of a step, over all processes together", minimum=1, maximum=65536)
    learning_rate: float = weight(4e-4, "run", "of Adam at the start")
    final_rate: float = weight(4e-5, "run", "of Adam at the end of half a cosine over all iterations")
    average: float = setting(
        0.995, "run", "decay of the weights' moving average, which is what is saved", minimum=0.0, maximum=1.0
    )
    log_every: int = setting(50, "run", "steps between lines of losses.csv", minimum=1, maximum=10**8)
    sample_every: int = setting(1000, "run", "steps between pictures of samples, 0 = none", minimum=0, maximum=10**8)
    save_every: int = setting(1000, "run", "steps between checkpoints", minimum=1, maximum=10**8)

    perceptual: str = setting(
        "auto", "losses", "auto = LPIPS where its weights are found, else laplacian; lpipsPublished = with the published scaling",
        choices=("auto", "lpips", "lpipsPublished", "laplacian"),
    )  # fmt: skip
    weight_pixel: float = weight(1.0, "losses", "mean absolute difference; in the swapper for pairs alone")
    weight_perceptual: float = weight(1.0, "losses", "perceptual loss")
    weight_codebook: float = weight(1.0, "losses", "distance of latent vectors and codes")
    weight_identity: float = weight(15.0, "losses", "identity of swapped faces")
    weight_adversarial: float = weight(0.0, "losses", "discriminator, 0 = none")
    adversarial_start: int = setting(30002, "losses", "first step with a discriminator", minimum=1, maximum=10**8)
    discriminator_rate: float = weight(8e-5, "losses", "learning rate of the discriminator at the start")
    discriminator_final_rate: float = weight(6e-5, "losses", "learning rate of the discriminator at the end")
    imagenet: str = setting(
        "", "losses", "timm's weights of tf_efficientnet_lite0 for the swapper's discriminator; it is poor without"
    )

    start_batches: int = setting(
        8, "codebooks", "batches whose latent vectors the codes start on", minimum=1, maximum=10**4
    )
    restart_every: int = setting(
        100, "codebooks", "steps between looks for unused codes, 0 = never", minimum=0, maximum=10**8
    )
    domain: str = setting(
        "", "codebooks", "stage 2 of this domain alone, as published", choices=("", "diffuse", "specular", "normal", "roughness")
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_rate > self.learning_rate:
            raise ConfigError(
                f"finalRate = {self.final_rate:g} is above learningRate = {self.learning_rate:g}: the rate would rise; "
                "set it to at most that"
            )
        if self.generated > 1.0:
            raise ConfigError(f"generated = {self.generated:g} is not possible; it takes a number from 0 to 1")

    @classmethod
    def of(cls, stage: str, preset: str) -> TrainSettings:
        """The defaults of a stage. Raises ConfigError."""
        if stage not in STAGES:
            raise ConfigError(f"there is no stage {stage!r}: choose one of {', '.join(STAGES)}")
        own = cls(preset=preset)  # refuses an unknown preset
        return replace(own, **_DEFAULTS[preset].get(stage, {}))


_GAN = {"weight_adversarial": 0.8, "crop": "ffhq", "masked": 0.0, "batch": 12, "perceptual": "lpipsPublished"}
_REFINEMENT: dict[str, Any] = {"learning_rate": 5e-5, "final_rate": 3.75e-5, "iterations": 100_000}
_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "stage2": {"learning_rate": 2e-4, "final_rate": 2e-5, "iterations": 10000},
        "fusion": {"learning_rate": 2e-4, "final_rate": 2e-5, "iterations": 5000},
        "denoise": {"learning_rate": 1e-4, "final_rate": 1e-5, "iterations": 2000},
        "identity": {"learning_rate": 1e-3, "final_rate": 1e-5, "batch": 32},
        "swapper": {"learning_rate": 4e-4, "final_rate": 4e-5, "average": 0.997, "weight_pixel": 2.0},
    },
    "published": {
        "stage1": _GAN | {"learning_rate": 8e-5, "final_rate": 6e-5, "iterations": 700_000},
        "stage2": _GAN | _REFINEMENT | {"discriminator_rate": 5e-5, "discriminator_final_rate": 3.75e-5},
        "fusion": _GAN | _REFINEMENT | {"discriminator_rate": 5e-5, "discriminator_final_rate": 3.75e-5},
        "denoise": _GAN | {"weight_adversarial": 0.0, "learning_rate": 5e-5, "final_rate": 3.75e-5, "iterations": 10000},
        "identity": {"learning_rate": 1e-3, "final_rate": 1e-5, "batch": 64, "crop": "ffhq", "masked": 0.0},
        "swapper": _GAN | {
            "learning_rate": 7e-5, "final_rate": 2e-5, "iterations": 500_000, "average": 0.997, "weight_pixel": 2.0,
            "weight_adversarial": 1.0, "adversarial_start": 1, "discriminator_rate": 2e-5, "discriminator_final_rate": 2e-5,
        },
    },
}  # fmt: skip
"""What differs from the fields' own defaults. The published rates of stage 2 and fusion end at 6e-5, above their start of
5e-5; they end at the same share of the start as stage 1's instead."""
