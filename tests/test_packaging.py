"""The package as others get it: pins, declared imports, the wheel and its data, the set-up script."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from nextface import paths

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a checkout")

# Import name -> distribution, where they differ.
DISTRIBUTION = {"cv2": "mediapipe", "PIL": "pillow", "pillow_heif": "pillow-heif"}
OPTIONAL = {"face_alignment", "nvdiffrast"}  # installed by hand (README.md)


def pinned(text: str) -> dict[str, str]:
    """name -> version of every `name==version` in a text; names as pip compares them."""
    found = re.findall(r'^\s*"?([A-Za-z0-9_.-]+)==([0-9][^"\s,]*)', text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def direct_dependencies() -> dict[str, str]:
    """The pins of pyproject.toml: dependencies and extras."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = text[text.index("\ndependencies = [") : text.index("\n[project.scripts]")]
    return pinned(lists.replace("[", "\n").replace(", ", ",\n"))


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lock_covers_the_direct_dependencies():
    lock = pinned((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    direct = direct_dependencies()
    assert {"torch", "mediapipe", "pytest", "pillow-heif", "ruff"} <= set(direct)
    assert {name: lock.get(name) for name in direct} == direct


def test_lock_pins_everything_and_holds_one_opencv():
    lines = [
        line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line[:1] not in "#"
    ]
    assert all("==" in line for line in lines), [line for line in lines if "==" not in line]
    names = pinned("\n".join(lines))
    assert [name for name in names if name.startswith("opencv")] == ["opencv-contrib-python"]
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]
    assert names["numpy"].startswith("1.26.") and names["mediapipe"] == "0.10.21" and names["torch"] == "2.13.0"


def test_every_import_is_declared():
    declared = set(direct_dependencies()) | OPTIONAL
    undeclared = {}
    for file in sorted((ROOT / "nextface").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in (part.partition(".")[0] for part in names):
                if name == "nextface" or name in sys.stdlib_module_names:
                    continue
                if DISTRIBUTION.get(name, name).lower() not in declared:
                    undeclared[name] = file.name
    assert not undeclared


def test_nothing_linux_only_is_imported():
    unix_only = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios"}
    for file in sorted((ROOT / "nextface").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # Inside a function it may stand, behind a check of the platform.
        at_import = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in at_import if isinstance(node, ast.ImportFrom) and node.module}
        assert not names & unix_only, file


def test_import_is_quick_and_light():
    """`import nextface` must not bring in torch: the command line sets thread counts before torch starts."""
    code = "import sys, nextface; print([m for m in ('torch', 'mediapipe', 'cv2', 'matplotlib', 'numba') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert shown.strip() == "[]"


def test_checkout_data_is_found():
    assert paths.data_root() == ROOT
    assert paths.default_config().is_file()
    assert (paths.default_model_folder() / "open_head.h5").is_file()
    assert paths.resource("portrait.png").is_file()


def test_stock_model_folder_means_the_default_model_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.model_folder("./baselMorphableModel") == paths.default_model_folder()
    assert paths.model_folder("elsewhere") == Path("elsewhere")
    (tmp_path / "baselMorphableModel").mkdir()
    assert paths.model_folder("./baselMorphableModel") == Path("baselMorphableModel")


def test_shipped_portrait():
    from PIL import Image

    with Image.open(ROOT / "resources" / "portrait.png") as image:
        assert image.size == (512, 512) and image.mode == "RGB"
    assert "portrait.png" in (ROOT / "resources" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout without reaching for the network."""
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling (pip install .[dev])")
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return next(folder.glob("nextface-*.whl"))


def test_wheel_holds_the_data_and_nothing_foreign(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "nextface").rglob("*"):
        if path.is_file() and path.suffix in {".py", ".npz", ".typed"}:
            assert path.relative_to(ROOT).as_posix() in names
    for data in ("optimConfig.ini", "baselMorphableModel/open_head.h5", "resources/portrait.png"):
        assert f"nextface/data/{data}" in names
    models = [name for name in names if name.endswith(".h5")]
    assert models == ["nextface/data/baselMorphableModel/open_head.h5"]
    assert not [name for name in names if name.startswith(("tests", "tools", "benchmarks"))]
    assert wheel.stat().st_size < 40e6


def test_wheel_finds_its_model_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from nextface import config, paths; from nextface.morphable import load_model\n"
        "model = load_model(paths.model_folder('./baselMorphableModel'))\n"
        "assert paths.default_config().is_file() and paths.resource('portrait.png').is_file()\n"
        "print(paths.PACKAGE, model.mean.shape[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    package, vertices = done.stdout.rsplit(maxsplit=1)
    assert Path(package) == (tmp_path / "site" / "nextface").resolve() and int(vertices) > 10_000


def test_set_up_takes_the_first_supported_python(monkeypatch):
    set_up = load_tool("set_up")
    known = {"python3": ("/usr/bin/python3.13", (3, 13)), "python3.11": ("/usr/bin/python3.11", (3, 11))}
    monkeypatch.setattr(set_up, "version_of", known.get)
    assert set_up.pick_python(["python3", "python3.12", "python3.11"]) == "/usr/bin/python3.11"


def test_set_up_says_what_is_missing(monkeypatch):
    set_up = load_tool("set_up")
    monkeypatch.setattr(set_up, "version_of", {"python3": ("/usr/bin/python3.13", (3, 13))}.get)
    with pytest.raises(SystemExit, match=r"found 3\.13, but 3\.10, 3\.11 or 3\.12 is needed"):
        set_up.pick_python(["python3", "python"])
    with pytest.raises(SystemExit, match="found none"):
        set_up.pick_python(["python"])


def test_set_up_reads_the_version_of_a_real_python():
    set_up = load_tool("set_up")
    executable, version = set_up.version_of(sys.executable)
    assert Path(executable).exists() and version == sys.version_info[:2]
    assert set_up.version_of("no-such-python") is None
