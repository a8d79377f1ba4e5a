"""What the prior is tested on: repeatable, true, and out of reach of everything that trains."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("benchmarks", reason="needs a checkout")

from benchmarks.synthetic import LIGHTS, lights_of
from benchmarks.unseen.faces import LIGHTS as LIGHTS_EACH
from benchmarks.unseen.faces import photo_crop, relit_photo, scene_crop, turned, unseen_photo
from benchmarks.unseen.patterns import process, reaction_diffusion
from nextface.color import linear_to_srgb
from nextface.prior.encoding import CHANNELS, Encoding

ROOT = Path(__file__).resolve().parents[2]
ENCODING = Encoding(image_size=48)

WATCH = """
import json, pkgutil, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
import nextface.prior
for module in pkgutil.walk_packages(nextface.prior.__path__, "nextface.prior."):
    __import__(module.name)
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.encoding import Encoding
head = read_open_head(default_model_folder() / "open_head.h5")
settings = FacesSettings(2, 2, people=4, identities=1, expressions=1, partners=True, corrupted=True)
next(GeneratedFaces(head, settings, Encoding(image_size=16)))
print(json.dumps({"opened": opened, "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def photo(head):
    return unseen_photo(head, 3, texture=256, scale=0.3)


def imports(path: Path) -> set[str]:
    """Modules that a file names in imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_files() -> list[Path]:
    """The unseen faces' files and those of the benchmarks that they import, down to the last."""
    known: list[Path] = []
    waiting = sorted((ROOT / "benchmarks" / "unseen").glob("*.py"))
    while waiting:
        file = waiting.pop()
        if file.is_file() and file not in known:
            known.append(file)
            names = [name for name in imports(file) if name.partition(".")[0] == "benchmarks"]
            waiting += [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return known


def test_all_that_trains_neither_imports_nor_opens_it():
    """Every module of the prior is imported, and a batch is drawn, with every file that Python opens on record."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    assert not [name for name in seen["modules"] if name.partition(".")[0] in ("benchmarks", "tests", "tools")]
    opened = [Path(name) for name in seen["opened"]]
    assert any(path.name == "lights.npz" for path in opened), "the record works"
    assert not [path for path in opened if (ROOT / "benchmarks") in path.parents or "heldout" in path.name]


def test_no_file_of_the_package_names_it():
    """`train-prior` cannot be told to read it either: no import, no path."""
    for path in sorted((ROOT / "nextface").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in imports(path) if name.partition(".")[0] == "benchmarks"], path
        assert "heldout" not in text and "benchmarks/" not in text, path


def test_it_takes_nothing_from_the_training_faces():
    """Of the prior it takes the crops and their encoding, of the tools nothing."""
    files = own_files()
    assert {"faces.py", "skin.py", "patterns.py", "synthetic.py"} <= {file.name for file in files}
    for file in files:
        taken = {name for name in imports(file) if name.startswith(("nextface.prior", "tools", "open_head"))}
        allowed = ("nextface.prior.crops", "nextface.prior.encoding")
        assert not [name for name in taken if not name.startswith(allowed)], file


def test_they_share_no_environment():
    from nextface.prior.data import lights

    with np.load(Path(lights.__file__).parent / "lights.npz") as own, np.load(LIGHTS) as other:
        assert len(own["name"]) == 11 and len(other["name"]) == 5
        assert not set(own["name"]) & set(other["name"])


def test_the_same_number_gives_the_same_photo(head, photo):
    again = unseen_photo(head, 3, texture=256, scale=0.3)
    assert np.array_equal(photo.pixels, again.pixels) and photo.tone == again.tone
    for name, texture in photo.scene.maps.textures().items():
        assert torch.equal(texture.full(), again.scene.maps.textures()[name].full()), name


def test_the_maps_are_skin(photo):
    maps = photo.scene.maps
    assert 0.0 <= maps.diffuse.full().min() and maps.diffuse.full().max() <= 0.96
    assert 0.0 <= maps.specular.full().min() and maps.specular.full().max() <= 1.0
    assert 0.1 <= maps.roughness.full().min() and maps.roughness.full().max() <= 1.0
    assert 0.005 < maps.normal.full().std() < 0.5
    assert -65.0 < photo.tone < 65.0


def test_the_photo_shows_its_scene(head, photo):
    """Cut from the photo or drawn from the truth, a crop is the same picture but for noise, rounding and resampling."""
    cut, drawn = (photo_crop(photo, head, ENCODING), scene_crop(photo.scene, head, ENCODING))
    core = (drawn.skin > 0.99)[0, 0]
    difference = linear_to_srgb(cut.domains["shared"]) - linear_to_srgb(drawn.domains["shared"])
    assert core.sum() > 300
    assert difference[0][:, core].square().mean().sqrt() < 0.05
    assert difference[0][:, core].mean().abs() < 0.01


def test_crops_of_every_domain_in_three_views(head, photo):
    for yaw in (0.0, 45.0, -45.0):
        crops = scene_crop(turned(photo.scene, yaw), head, ENCODING)
        assert set(crops.domains) == set(CHANNELS)
        for domain, values in crops.domains.items():
            assert values.shape == (1, CHANNELS[domain], 48, 48)
            assert torch.isfinite(ENCODING.encode(domain, values)).all()
        assert 0.3 < crops.skin.mean() < 0.9
        known = crops.covered[0, 0] > 0
        ahead = crops.mesh_normal[0, :, known].mean(1)
        # Model axes: a head turned towards the photo's right shows its own right side, −x.
        assert ahead[0] * yaw <= 0.0 if yaw else ahead[0].abs() < 0.2
        lengths = crops.domains["normal"][0, :, known].norm(dim=0)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)


def test_patterns():
    rng = np.random.default_rng(0)
    coarse, fine = process(rng, 128, 64.0, 16.0, 1.0), process(rng, 128, 64.0, 2.0, 0.0)
    assert coarse.std() == pytest.approx(1.0, abs=1e-4)
    assert np.abs(np.diff(coarse)).mean() < 0.4 * np.abs(np.diff(fine)).mean()
    spots = reaction_diffusion(rng, 64)
    assert spots.std() == pytest.approx(1.0, abs=1e-3), "the reaction has not died out"


def test_the_same_person_under_another_light(head, photo):
    relit = relit_photo(head, 3, 1, texture=256, scale=0.3)
    assert relit.name == "unseen_03_light_1" and relit.light.endswith("side")
    for name in ("shape", "albedo", "expression", "rotation", "translation", "focal"):
        assert torch.equal(getattr(relit.scene, name), getattr(photo.scene, name)), name
    for name, texture in photo.scene.maps.textures().items():
        assert torch.equal(texture.full(), relit.scene.maps.textures()[name].full()), name
    assert not torch.allclose(relit.scene.light, photo.scene.light)
    assert not np.array_equal(relit.pixels, photo.pixels)
    assert len({lights_of(light, np.random.default_rng([21, light]))[0] for light in range(LIGHTS_EACH)}) == LIGHTS_EACH
