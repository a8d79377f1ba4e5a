"""Settings: NextFace's ini files run unchanged; every wrong one is refused with the remedy."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from nextface import config as config_module
from nextface import gpu
from nextface.config import STOCK_FOCAL, OptimConfig, fallback_device, settings
from nextface.errors import ConfigError
from nextface.ini import parse_ini

ROOT = Path(__file__).parent.parent

NEXTFACE_DEFAULTS = {
    "device": "cuda",
    "path": "./baselMorphableModel",
    "textureResolution": 512,
    "trimPca": False,
    "bands": 9,
    "envMapRes": 64,
    "smoothSh": True,
    "saveExr": False,
    "maxResolution": 256,
    "camFocalLength": 3000.0,
    "optimizeFocalLength": True,
    "iterStep1": 2000,
    "iterStep2": 400,
    "iterStep3": 100,
    "weightLandmarksLossStep2": 0.001,
    "weightLandmarksLossStep3": 0.001,
    "weightShapeReg": 0.001,
    "weightExpressionReg": 0.001,
    "weightAlbedoReg": 0.001,
    "weightDiffuseSymmetryReg": 300.0,
    "weightDiffuseConsistencyReg": 100.0,
    "weightDiffuseSmoothnessReg": 0.001,
    "weightSpecularSymmetryReg": 200.0,
    "weightSpecularConsistencyReg": 2.0,
    "weightSpecularSmoothnessReg": 0.001,
    "weightRoughnessSymmetryReg": 200.0,
    "weightRoughnessConsistencyReg": 0.0,
    "weightRoughnessSmoothnessReg": 0.002,
    "debugFrequency": 30,
    "saveIntermediateStage": False,
    "verbose": False,
}


def test_defaults_are_nextfaces():
    keys = OptimConfig().as_keys()
    assert {key: keys[key] for key in NEXTFACE_DEFAULTS} == NEXTFACE_DEFAULTS
    assert keys["landmarksDetectorType"] == "mediapipe"


def test_shipped_ini_holds_every_setting_with_its_default():
    shipped = ROOT / "optimConfig.ini"
    assert OptimConfig.from_ini(shipped) == OptimConfig()
    assert set(parse_ini(shipped.read_text(encoding="utf-8"), "")) == {setting.key for setting in settings()}
    assert shipped.read_text(encoding="utf-8") == OptimConfig().as_ini()


def test_ini_round_trip(tmp_path):
    changed = OptimConfig(path="C:\\models #1", iter_step2=7, trim_pca=True, weight_shape_reg=2.5e-7)
    (tmp_path / "a.ini").write_text(changed.as_ini(), encoding="utf-8")
    assert OptimConfig.from_ini(tmp_path / "a.ini") == changed


USERS_INI = """#compute device
device = 'cpu' #'cuda' or 'cpu'
{tracker} = 'fan' # 'mediapipe' or 'fan (one quote is missing)
path = "./my models"   #morphable model
textureResolution=1024
trimPca=True #if True keep only a subset
camFocalLength = 500 # pixels
weightDiffuseSymmetryReg = 1200.   #more = flatter
saveExr=false
rtSamples = 16
rtTrainingSamples = 8#samples
smoothing = False
rendererName = mitsuba # redner or mitsuba
"""


@pytest.mark.parametrize("tracker", ["tracker", "lamdmarksDetectorType", "landmarksDetectorType"])
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"[config]\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_users_ini(tmp_path, caplog, tracker, prefix, newline):
    text = USERS_INI.format(tracker=tracker).replace("\n", newline)
    (tmp_path / "old.ini").write_bytes(prefix + text.encode())
    with caplog.at_level(logging.WARNING):
        config = OptimConfig.from_ini(tmp_path / "old.ini")
    expected = OptimConfig(
        device="cpu",
        landmarks_detector_type="fan",
        path="./my models",
        texture_resolution=1024,
        trim_pca=True,
        cam_focal_length=500.0,
        weight_diffuse_symmetry_reg=1200.0,
    )
    assert config == expected
    assert len(caplog.records) == 1
    assert "rtSamples, rtTrainingSamples" in caplog.text and "without effect" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_ini_of_windows_editors(tmp_path, encoding):
    (tmp_path / "a.ini").write_bytes("path = 'Modèles'\r\nbands = 4".encode(encoding))
    config = OptimConfig.from_ini(tmp_path / "a.ini")
    assert (config.path, config.bands) == ("Modèles", 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("iterStep4 = 10", "unknown setting 'iterStep4'; did you mean 'iterStep"),
        ("max_resolution = 10", "did you mean 'maxResolution'?"),
        ("TEXTURERESOLUTION = 512", "did you mean 'textureResolution'?"),
        ("zzzzzz = 1", "optimConfig.ini lists every setting"),
        ("bands = nine", "bands = nine is not possible; it takes a whole number from 1 to 20"),
        ("bands = 2.5", "a whole number"),
        ("bands = 0", "from 1 to 20"),
        ("textureResolution = 500", "one of 256, 512, 1024, 2048, 4096"),
        ("trimPca = maybe", "True or False"),
        ("device = 'tpu'", "one of cuda, cpu"),
        ("tracker = 'dlib'", "one of mediapipe, fan"),
        ("camFocalLength = -3", "a number from 1"),
        ("camFocalLength = nan", "camFocalLength = nan is not possible"),
        ("weightShapeReg = -1", "at least 0"),
        ("maxResolution =", "a whole number from 32"),
        ("maxResolution", "line 1: 'maxResolution' is not 'key = value'"),
        ("path = './models", "quotes"),
    ],
)
def test_wrong_settings(tmp_path, line, message):
    path = tmp_path / "wrong.ini"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        OptimConfig.from_ini(path)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_ini(tmp_path):
    with pytest.raises(ConfigError, match="none.ini"):
        OptimConfig.from_ini(tmp_path / "none.ini")


def test_python_values_are_checked_too():
    with pytest.raises(ConfigError, match="iterStep1"):
        OptimConfig(iter_step1=-1)
    with pytest.raises(ConfigError, match="trimPca"):
        OptimConfig(trim_pca=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="textureResolution"):
        OptimConfig(texture_resolution=300)
    assert isinstance(OptimConfig(cam_focal_length=800).cam_focal_length, float)


def test_command_line_is_remembered():
    config = OptimConfig().with_texts({"camFocalLength": "3000", "bands": "5"}, command_line=True)
    assert config.from_command_line == {"cam_focal_length", "bands"}
    assert (config.cam_focal_length, config.bands) == (STOCK_FOCAL, 5)
    assert OptimConfig().with_texts({"bands": "5"}).from_command_line == frozenset()


def test_cuda_is_used_where_nothing_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(gpu, "missing", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert fallback_device(OptimConfig()) == "cuda"
        assert fallback_device(OptimConfig(device="cpu")) == "cpu"
    assert not caplog.records


def test_cuda_falls_back_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(gpu, "missing", lambda: "the moon is down")
    config_module._warn_no_cuda.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert fallback_device(OptimConfig()) == "cpu"
        assert fallback_device(OptimConfig()) == "cpu"
        assert fallback_device(OptimConfig(device="cpu")) == "cpu"
    assert [record.getMessage() for record in caplog.records] == [
        "device 'cuda': running on the cpu, since the moon is down"
    ]


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
    import torch

    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "nvdiffrast" in gpu.missing() and gpu.INSTALL_NVDIFFRAST in gpu.missing()
    assert "--no-build-isolation" in gpu.INSTALL_NVDIFFRAST
    for document in ("README.md", "docs/gpu.md", "environment.yml"):
        assert gpu.INSTALL_NVDIFFRAST in (ROOT / document).read_text(encoding="utf-8"), document
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "torch has no CUDA" in gpu.missing()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "no CUDA GPU" in gpu.missing()


def test_every_setting_is_explained():
    for setting in settings():
        assert 5 < len(setting.help) < 130 and "#" not in setting.help


def test_settings_are_read_before_torch():
    code = "import sys, nextface.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
