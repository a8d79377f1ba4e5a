"""The command line: NextFace's words, one clear line for every failure, and a batch that survives its bad photos."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nextface import cli
from nextface.config import OptimConfig
from nextface.errors import FitError, NoFaceError

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "resources" / "portrait.png"


@pytest.fixture
def calls(monkeypatch):
    """What `reconstruct_file` was called with, by itself or for each of a batch; `calls.fail[name]` makes a photo fail."""
    import nextface.pipeline

    class Calls(list):
        fail: dict[str, BaseException] = {}
        batches: list[list[str]] = []

    made = Calls()
    made.fail, made.batches = {}, []

    def reconstruct_file(path, output_folder, config, **rest):
        made.append({"path": path, "output": output_folder, "config": config, **rest})
        if path.name in made.fail:
            raise made.fail[path.name]

    def reconstruct_files(paths, output_folder, config, **rest):
        made.batches.append([path.name for path in paths])
        outcomes = []
        for path in paths:
            try:
                outcomes.append(reconstruct_file(path, output_folder, config, **rest))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    monkeypatch.setattr(nextface.pipeline, "reconstruct_file", reconstruct_file)
    monkeypatch.setattr(nextface.pipeline, "reconstruct_files", reconstruct_files)
    monkeypatch.setattr(cli, "set_threads", lambda config, environment: None)
    return made


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "face.jpg"
    Image.new("RGB", (64, 64)).save(path)
    return path


def failing(capsys, *words, code, message):
    """The command exits with `code` and one line on stderr that holds `message`."""
    assert cli.main([str(word) for word in words]) == code
    error = capsys.readouterr().err
    assert error.startswith("nextface: error: ") and error.count("\n") == 1, error
    assert message in error


def test_nextface_command_line(calls, photo, tmp_path, capsys):
    (tmp_path / "my.ini").write_text("iterStep1 = 7\nmaxResolution = 128 # small\ntracker = 'fan'\n", encoding="utf-8")
    words = ["--input", photo, "--output", tmp_path / "out", "--config", "my.ini", "--skipStage1", "--skipStage3"]
    words += [
        "--checkpoint",
        "old.safetensors",
        "--iterStep2",
        "100",
        "--maxResolution=512",
        "--trimPca",
        "--sharedIdentity",
    ]
    assert cli.main([str(word) for word in words]) == 0
    (call,) = calls
    config = call["config"]
    assert (config.iter_step1, config.iter_step2, config.max_resolution) == (7, 100, 512)
    assert config.landmarks_detector_type == "fan" and config.trim_pca is True
    assert config.from_command_line == {"iter_step2", "max_resolution", "trim_pca"}
    assert call["skip"] == {1, 3} and call["checkpoint"] == Path("old.safetensors") and call["landmarks_file"] is None
    assert (call["path"], call["output"]) == (photo, tmp_path / "out")
    output = capsys.readouterr()
    assert output.err == "" and "face.jpg: done" in output.out


def test_every_ini_key_is_an_option(calls, photo):
    changed = {
        "device": "cpu", "landmarksModel": "m.task", "path": "elsewhere", "trimPca": "True", "smoothSh": "False", "selfShadowing": "False",
        "saveExr": "True", "optimizeFocalLength": "False", "saveIntermediateStage": "True", "verbose": "True",
        "textureResolution": "256", "landmarksDetectorType": "fan", "priorCheckpoint": "p.safetensors", "priorMode": "image",
        "mapsInit": "prior", "identityCheckpoint": "i.safetensors", "priorTint": "0.25",
    }  # fmt: skip
    for key, value in OptimConfig().as_keys().items():
        text = changed.get(key, str(value + 1) if key not in changed else "")
        assert cli.main(["--input", str(photo), "--output", "out", f"--{key}", text]) == 0
        assert str(calls[-1]["config"].as_keys()[key]) in (text, f"{text}.0")
    assert cli.main(["--input", str(photo), "--lamdmarksDetectorType", "fan", "--rtSamples", "4000"]) == 0
    assert calls[-1]["config"].landmarks_detector_type == "fan"


def test_ini_of_the_working_folder_counts(calls, photo, tmp_path):
    assert cli.main(["--input", str(photo)]) == 0
    assert calls[-1]["config"] == OptimConfig() and calls[-1]["output"] == Path("output")
    (tmp_path / "optimConfig.ini").write_text("seed = 3", encoding="utf-8")
    assert cli.main(["--input", str(photo)]) == 0
    assert calls[-1]["config"].seed == 3


def test_wrong_words(calls, photo, tmp_path, capsys):
    failing(capsys, "--output", "x", code=2, message="--input")
    failing(capsys, "--input", photo, "--iterstep2", "5", code=2, message="did you mean '--iterStep2'?")
    failing(capsys, "--input", photo, "--shareIdentity", code=2, message="did you mean '--sharedIdentity'?")
    failing(
        capsys, "--input", photo, "--bands", "99", code=2, message="bands = 99 is not possible; it takes a whole number"
    )
    failing(capsys, "--input", photo, "--trimPca", "maybe", code=2, message="True or False")
    failing(capsys, "--input", photo, "--config", "no.ini", code=2, message="no.ini")
    (tmp_path / "bad.ini").write_text("iterStep = 5", encoding="utf-8")
    failing(capsys, "--input", photo, "--config", "bad.ini", code=2, message="did you mean 'iterStep")
    failing(capsys, "export", "--output", "x", code=2, message="--scene")
    assert calls == []


def test_input_and_output_problems(calls, photo, tmp_path, capsys):
    failing(capsys, "--input", "none.jpg", code=3, message="none.jpg: no such file or folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo", encoding="utf-8")
    failing(capsys, "--input", "empty", code=3, message="empty: the folder holds no photos")
    failing(capsys, "--input", photo, "--output", photo, code=6, message="face.jpg: is a file, not a folder")
    failing(capsys, "--input", photo, "--output", photo / "x", code=6, message="not a folder")
    assert calls == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser writes everywhere")
def test_output_folder_without_permission(calls, photo, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    failing(capsys, "--input", photo, "--output", "locked", code=6, message="cannot be written")


def test_failures_of_the_machine(calls, photo, capsys, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    calls.fail["face.jpg"] = OSError(errno.ENOSPC, "No space left on device", "out/face.jpg/mesh0.obj")
    failing(capsys, "--input", photo, code=6, message="mesh0.obj: the disk is full; free some space")
    calls.fail["face.jpg"] = PermissionError(errno.EACCES, "Permission denied", "out/face.jpg/mesh0.obj")
    failing(capsys, "--input", photo, code=6, message="mesh0.obj: cannot be written (Permission denied)")
    calls.fail["face.jpg"] = MemoryError()
    failing(capsys, "--input", photo, code=6, message="lower maxResolution")
    calls.fail["face.jpg"] = FitError("face.jpg: the maps stage diverged\nat iteration 3")
    failing(capsys, "--input", photo, code=7, message="diverged at iteration 3")
    monkeypatch.setattr(cli.tempfile, "TemporaryFile", lambda dir: full(dir))
    failing(capsys, "--input", photo, code=6, message="output: the disk is full")


def test_interrupt(calls, photo, capsys):
    calls.fail["face.jpg"] = KeyboardInterrupt()
    assert cli.main(["--input", str(photo)]) == 130
    assert "goes on after the last complete stage" in capsys.readouterr().err


def test_folder_goes_on_after_a_failure(calls, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("10.jpg", "2.PNG", "1.jpeg", "notes.txt", "x.tiff"):
        (folder / name).write_bytes(b"x")
    (folder / "sub.jpg").mkdir()
    calls.fail = {"2.PNG": NoFaceError("2.PNG: no face was found; try another"), "10.jpg": ZeroDivisionError("oops")}
    assert cli.main(["--input", str(folder), "--output", str(tmp_path / "out")]) == 1
    assert [call["path"].name for call in calls] == ["1.jpeg", "2.PNG", "10.jpg", "x.tiff"]
    output = capsys.readouterr()
    table = output.out[output.out.index("2 of 4 photos") :]
    assert (
        "1.jpeg" in table and "failed: 2.PNG: no face was found" in table and "failed: ZeroDivisionError: oops" in table
    )
    assert "nextface: error: 2.PNG: no face was found" in output.err and "Traceback" in output.err
    assert calls.batches == [["1.jpeg"], ["2.PNG"], ["10.jpg"], ["x.tiff"]]
    calls.fail, calls.batches = {}, []
    assert cli.main(["--input", str(folder), "--output", str(tmp_path / "out"), "--batchSize", "3"]) == 0
    assert calls.batches == [["1.jpeg", "2.PNG", "10.jpg"], ["x.tiff"]]


def test_a_failure_of_the_machine_in_a_folder_is_explained(calls, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    calls.fail = {
        "a.jpg": OSError(errno.ENOSPC, "No space left on device", "out/a.jpg/mesh0.obj"),
        "b.jpg": MemoryError(),
    }
    assert cli.main(["--input", str(folder), "--output", str(tmp_path / "out"), "--batchSize", "2"]) == 1
    error = capsys.readouterr().err
    assert "mesh0.obj: the disk is full" in error and "lower maxResolution" in error and "Traceback" not in error


def test_options_of_one_photo_are_refused_for_many(calls, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    base = ["--input", folder, "--output", tmp_path / "out"]
    failing(capsys, *base, "--sharedIdentity", code=2, message="--sharedIdentity with 2 photos is not possible")
    failing(capsys, *base, "--landmarks", "l.json", code=2, message="--landmarks belongs to one photo")
    failing(capsys, *base, "--checkpoint", "c", code=2, message="--checkpoint belongs to one photo")


def test_unexpected_errors_keep_their_traceback(calls, photo):
    calls.fail["face.jpg"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        cli.main(["--input", str(photo)])


def test_export(monkeypatch, tmp_path, capsys):
    import nextface.export

    made = []

    def export_scene(scene, folder, only, photo):
        made.append((scene, folder, only, photo))
        return [folder / "diffuseMap_0.png"]

    monkeypatch.setattr(nextface.export, "export_scene", export_scene)
    monkeypatch.setattr(cli, "set_threads", lambda config, environment: None)
    assert cli.main(["export", "--scene", "a.safetensors", "--output", str(tmp_path), "--only", "maps, mesh"]) == 0
    assert cli.main(["export", "--checkpoint", "b", "--output", str(tmp_path), "--input", "p.jpg"]) == 0
    assert made[0] == (Path("a.safetensors"), tmp_path, ["maps", "mesh"], None)
    assert made[1] == (Path("b"), tmp_path, None, Path("p.jpg"))
    assert str(tmp_path / "diffuseMap_0.png") in capsys.readouterr().out


def test_export_of_a_wrong_file(tmp_path, capsys, monkeypatch):
    """A missing file, a text, and a pickle that would run code: never unpickled."""
    monkeypatch.setattr(cli, "set_threads", lambda config, environment: None)

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "text").write_text("hello", encoding="utf-8")
    (tmp_path / "trap.pickle").write_bytes(pickle.dumps(Trap()))
    for name in ("none", "text", "trap.pickle"):
        words = ["export", "--scene", tmp_path / name, "--output", tmp_path / "out"]
        failing(capsys, *words, code=3, message=f"{tmp_path / name}: not a saved scene")
    assert not (tmp_path / "sprung").exists()


def test_threads():
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    cli.set_threads(OptimConfig(threads=3), environment)
    assert environment["OMP_NUM_THREADS"] == environment["NUMBA_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE" and environment["KMP_BLOCKTIME"] == "0"
    environment = {"OMP_NUM_THREADS": "1"}
    cli.set_threads(OptimConfig(), environment)
    assert environment["OMP_NUM_THREADS"] == "1" and "NUMBA_NUM_THREADS" not in environment


def python(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env=environment, **options
    )


def test_environment_is_set_before_torch(tmp_path):
    """When the pipeline is imported the variables are there and torch is not."""
    code = """
        import os, sys
        from nextface import cli
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "nextface.pipeline":
                    print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("NUMBA_NUM_THREADS"), "torch" in sys.modules)
                    os._exit(0)
        sys.meta_path.insert(0, Finder())
        sys.stdout.reconfigure(line_buffering=True)
        cli.main(["--input", sys.argv[1], "--output", sys.argv[2], "--threads", "2"])
    """
    result = python("-c", textwrap.dedent(code), PORTRAIT, tmp_path)
    assert result.stdout.split() == ["PASSIVE", "2", "False"], result.stderr


def test_importing_the_library_leaves_the_environment_alone():
    code = "import os; before = dict(os.environ); import nextface, nextface.config, nextface.photo, nextface.landmarks"
    result = python("-c", code + "; assert dict(os.environ) == before")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("words", [("-m", "nextface"), (ROOT / "optimizer.py",)])
def test_help_is_quick_and_complete(words, tmp_path):
    before = os.times()
    result = python(*words, "--help", cwd=tmp_path)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert result.returncode == 0 and result.stderr == "" and spent < 0.5
    for word in ("--input", "--sharedIdentity", "--skipStage3", "--landmarks FILE", *OptimConfig().as_keys()):
        assert word in result.stdout
    assert python(*words, "--version", cwd=tmp_path).stdout.startswith("nextface ")


@pytest.mark.slow
def test_real_folder_with_bad_photos(tmp_path):
    """The whole command on a good photo among bad ones, with few iterations."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(PORTRAIT, folder / "good.png")
    (folder / "cut.png").write_bytes(PORTRAIT.read_bytes()[:20000])
    (folder / "text.jpg").write_text("hello", encoding="utf-8")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    words = ["--iterStep2", "2", "--iterStep3", "2", "--textureResolution", "256", "--maxResolution", "64"]
    result = python(
        "-m", "nextface", "--input", folder, "--output", "out", "--debugFrequency", "0", *words, cwd=tmp_path
    )
    assert result.returncode == 1, result.stderr
    assert "1 of 5 photos reconstructed" in result.stdout and "Traceback" not in result.stderr
    for name, reason in {
        "cut.png": "damaged",
        "text.jpg": "not an image",
        "one.png": "too few",
        "noise.png": "no face",
    }.items():
        assert any(name in line and reason in line for line in result.stdout.splitlines())
    assert (tmp_path / "out" / "good.png" / "mesh0.obj").stat().st_size > 1e5
    assert (tmp_path / "out" / "good.png" / "diffuseMap_0.png").is_file()
