"""Settings: NextFace's ini as a typed, validated dataclass. Imports nothing heavy, so that it can be read before torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

from nextface import gpu
from nextface.ini import IniSettings, Setting, setting, settings_of, weight

logger = logging.getLogger(__name__)

STOCK_FOCAL = 3000.0
"""NextFace's shipped camFocalLength: it says nothing about the photo's camera."""

ALIASES = {"lamdmarksDetectorType": "landmarksDetectorType", "tracker": "landmarksDetectorType"}
"""Other spellings of a key in the ini files that NextFace's users have."""

WITHOUT_EFFECT = frozenset(
    ("rtSamples", "rtTrainingSamples", "bounces", "smoothing", "rendererName", "debugOutput", "saveTime")
)
"""NextFace's path-tracing and bookkeeping keys: accepted, nothing to set here."""


@dataclass(frozen=True)
class OptimConfig(IniSettings):
    """Every setting of a run. A field `iter_step1` is the ini key `iterStep1`; the metadata of each field explains it.

    from_command_line: names of the fields that the user set for this run alone; a focal length given there outranks EXIF.
    """

    aliases: ClassVar[Mapping[str, str]] = ALIASES
    without_effect: ClassVar[frozenset[str]] = WITHOUT_EFFECT
    header: ClassVar[str] = "nextface settings; every key can also be given on the command line, e.g. --iterStep2 100"

    device: str = setting(
        "cuda", "compute", "'cuda' or 'cpu'; falls back to cpu with a warning", choices=("cuda", "cpu")
    )
    batch_size: int = setting(
        1, "compute", "photos of a folder that are fitted at a time; the results stay the same", minimum=1, maximum=1024
    )
    threads: int = setting(0, "compute", "CPU threads, 0 = all cores", minimum=0, maximum=1024)
    seed: int = setting(
        0, "compute", "seed of everything random; same seed, same result on CPU", minimum=0, maximum=2**53
    )

    landmarks_detector_type: str = setting(
        "mediapipe",
        "landmarks",
        "'mediapipe' or 'fan' (needs the package face-alignment)",
        choices=("mediapipe", "fan"),
    )
    landmarks_model: str = setting(
        "",
        "landmarks",
        "path of a face_landmarker.task for MediaPipe's Tasks API, empty = the models in MediaPipe's wheel",
    )

    path: str = setting(
        "./baselMorphableModel", "morphable model", "folder of the model files; its content picks the model"
    )
    texture_resolution: int = setting(
        512, "morphable model", "side of the skin maps in texels", choices=(256, 512, 1024, 2048, 4096)
    )
    trim_pca: bool = setting(False, "morphable model", "keep only the first 80 components of each basis")

    bands: int = setting(
        9, "light", "spherical-harmonic bands of the light, bands² coefficients", minimum=1, maximum=20
    )
    self_shadowing: bool = setting(
        True, "light", "the head shadows itself; False renders faster, and cast shadows stay in the albedo"
    )
    env_map_res: int = setting(64, "light", "height of the exported environment map", minimum=4, maximum=4096)
    smooth_sh: bool = setting(True, "light", "low-pass the light before it is exported as an environment map")
    save_exr: bool = setting(False, "light", "environment map as EXR instead of PNG")

    max_resolution: int = setting(
        256,
        "image",
        "longest side of the fitted crop in pixels; larger faces are scaled down",
        minimum=32,
        maximum=8192,
    )

    cam_focal_length: float = setting(
        STOCK_FOCAL,
        "camera",
        "focal length in pixels of the photo scaled to maxResolution; 3000 = unknown, taken from EXIF or a 50 mm portrait lens",
        minimum=1.0,
        maximum=1e7,
    )
    optimize_focal_length: bool = setting(True, "camera", "refine the focal length; False keeps it as given")

    iter_step1: int = setting(2000, "optimization", "upper bound of the pose stage's steps", minimum=0, maximum=10**7)
    iter_step2: int = setting(400, "optimization", "iterations of the statistical stage", minimum=0, maximum=10**7)
    iter_step3: int = setting(100, "optimization", "iterations of the maps stage", minimum=0, maximum=10**7)
    weight_landmarks_loss_step2: float = weight(
        0.001, "optimization", "weight of the landmarks in the statistical stage"
    )
    weight_landmarks_loss_step3: float = weight(
        0.001, "optimization", "kept for NextFace's files; without effect, since the maps stage does not move the mesh"
    )
    weight_shape_reg: float = weight(0.001, "optimization", "pull of the shape coefficients towards the mean")
    weight_expression_reg: float = weight(0.001, "optimization", "pull of the expression coefficients towards neutral")
    weight_albedo_reg: float = weight(0.001, "optimization", "pull of the albedo coefficients towards the mean")

    weight_diffuse_symmetry_reg: float = weight(
        300.0, "diffuse map", "left-right symmetry; more (1200) for harsh shadows"
    )
    weight_diffuse_consistency_reg: float = weight(100.0, "diffuse map", "chroma stays near the statistical map's")
    weight_diffuse_smoothness_reg: float = weight(0.001, "diffuse map", "smoothness")
    weight_specular_symmetry_reg: float = weight(
        200.0, "specular map", "left-right symmetry; more (300) for harsh shadows"
    )
    weight_specular_consistency_reg: float = weight(2.0, "specular map", "stays near the statistical map")
    weight_specular_smoothness_reg: float = weight(0.001, "specular map", "smoothness")
    weight_roughness_symmetry_reg: float = weight(
        200.0, "roughness map", "left-right symmetry; more (300) for harsh shadows"
    )
    weight_roughness_consistency_reg: float = weight(0.0, "roughness map", "stays near the statistical map")
    weight_roughness_smoothness_reg: float = weight(0.002, "roughness map", "smoothness")

    prior_checkpoint: str = setting(
        "",
        "prior",
        "file of the reflectance prior, as train-prior writes it; empty = the shipped one, where there is one",
    )
    identity_checkpoint: str = setting(
        "",
        "prior",
        "file of a network that tells faces apart: ArcFace (IResNet-100) or one of train-prior; empty = the prior's own",
    )
    prior_mode: str = setting(
        "uv",
        "prior",
        "'uv' pulls to maps made of the prior's crops; 'image' compares the crops in every iteration, slower",
        choices=("uv", "image"),
    )
    prior_every: int = setting(
        40, "prior", "iterations of the maps stage after which the prior is asked again", minimum=1, maximum=10**7
    )
    maps_init: str = setting(
        "statistical",
        "prior",
        "the maps stage starts from the 'statistical' maps, or from those that the 'prior' makes for the photo's identity",
        choices=("statistical", "prior"),
    )
    weight_prior_diffuse: float = weight(
        0.3, "prior", "pull on the pattern of the diffuse map, 1 = as strong as the photo's, 0 = none"
    )
    weight_prior_specular: float = weight(1.0, "prior", "pull on the specular map")
    weight_prior_roughness: float = weight(1.0, "prior", "pull on the roughness map")
    weight_prior_normal: float = weight(1.0, "prior", "pull on the normal map")
    prior_tint: float = setting(
        0.7,
        "prior",
        "share of the prior's tint that the skin gets and the light loses, 0 = none",
        minimum=0.0,
        maximum=1.0,
    )

    debug_frequency: int = setting(
        30, "debug", "a debug image every so many iterations, 0 = none", minimum=0, maximum=10**7
    )
    save_intermediate_stage: bool = setting(False, "debug", "export the results of stages 1 and 2 too")
    verbose: bool = setting(False, "debug", "log losses and details")

    from_command_line: frozenset[str] = frozenset()

    def with_texts(self, texts: Mapping[str, str], origin: str = "", command_line: bool = False) -> OptimConfig:
        """This config with ini keys set from text.

        texts: key (any accepted spelling) to text; origin: begins the error message, e.g. "my.ini: ".
        """
        values = self.parsed(texts, origin)
        given_now = self.from_command_line | frozenset(values) if command_line else self.from_command_line
        return replace(self, **values, from_command_line=given_now)

    @classmethod
    def listed(cls) -> str:
        return "optimConfig.ini lists every setting"


def settings() -> tuple[Setting, ...]:
    """All ini keys in the order of the shipped file."""
    return settings_of(OptimConfig)


def fallback_device(config: OptimConfig) -> str:
    """The device that the run uses: 'cuda' falls back to 'cpu' where no GPU can be used, said once."""
    if config.device != "cuda" or gpu.missing() is None:
        return config.device
    _warn_no_cuda()
    return "cpu"


@cache
def _warn_no_cuda() -> None:
    logger.warning("device 'cuda': running on the cpu, since %s", gpu.missing())
