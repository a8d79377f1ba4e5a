"""Makes .venv and installs the project into it, with the versions of requirements.lock. Needs nothing but Python and pip.

    python tools/set_up.py [--dev] [PIP ARGUMENT ...]

`make demo` and `make test` call it. Any Python can run it; it picks one that the pinned packages support for .venv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 10), (3, 12)
HEADLESS = "opencv-contrib-python-headless"
PROBE = "import sys; print(sys.executable); print(*sys.version_info[:2])"


def run(*command: str | Path, quiet: bool = False) -> bool:
    """Run a command; True where it succeeded."""
    silence = subprocess.DEVNULL if quiet else None
    return subprocess.run([str(part) for part in command], stdout=silence, stderr=silence).returncode == 0


def version_of(python: str) -> tuple[str, tuple[int, int]] | None:
    """(executable, (major, minor)) of an interpreter that can be started, else None."""
    try:
        lines = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True).stdout.splitlines()
        major, minor = lines[1].split()
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return None
    return lines[0], (int(major), int(minor))


def pick_python(candidates: list[str]) -> str:
    """The first candidate whose version the pinned packages support. Ends the program with the remedy where there is none."""
    seen = []
    for candidate in candidates:
        found = version_of(candidate)
        if found is None:
            continue
        executable, version = found
        if OLDEST <= version <= NEWEST:
            return executable
        seen.append(f"{version[0]}.{version[1]}")
    sys.exit(
        f"set_up: no usable Python: found {', '.join(dict.fromkeys(seen)) or 'none'}, but 3.10, 3.11 or 3.12 is needed "
        "(mediapipe 0.10.21 has no wheel for others). Install one of them, then name it if it is not on the PATH: "
        "make demo PYTHON=/path/to/python3.12"
    )


def in_venv(name: str) -> Path:
    """A program of .venv."""
    return VENV / "Scripts" / f"{name}.exe" if os.name == "nt" else VENV / "bin" / name


def make_venv(python: str) -> None:
    """Create .venv with pip in it, also on a Debian whose Python came without ensurepip (package python3-venv)."""
    if run(python, "-c", "import ensurepip", quiet=True):
        done = run(python, "-m", "venv", VENV)
    else:
        where = subprocess.run([python, "-c", "import pip; print(pip.__path__[0])"], capture_output=True, text=True)
        done = where.returncode == 0 and run(python, "-m", "venv", "--without-pip", VENV)
        done = done and run(in_venv("python"), where.stdout.strip(), "install", "--quiet", "--ignore-installed", "pip")
    if not done or not run(in_venv("python"), "-m", "pip", "--version", quiet=True):
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(f"set_up: {python} could not make .venv. On Debian and Ubuntu: apt install python3-venv python3-pip")


def install(extras: str, pip_arguments: list[str]) -> None:
    """Install the checkout, editable, with the locked versions."""
    pip = [in_venv("python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *pip_arguments]
    if not run(*pip, "-c", ROOT / "requirements.lock", "-e", f"{ROOT}{extras}"):
        sys.exit("set_up: pip failed; its own message stands above")
    if not run(in_venv("python"), "-c", "import cv2", quiet=True):
        # OpenCV's usual wheel needs the libGL of a desktop; its headless twin has the same modules and does not.
        locked = (ROOT / "requirements.lock").read_text().splitlines()
        version = next(line.partition("==")[2] for line in locked if line.startswith("opencv-contrib-python=="))
        print(f"set_up: OpenCV does not load here (no libGL?): taking {HEADLESS} instead", flush=True)
        run(in_venv("python"), "-m", "pip", "uninstall", "--quiet", "--yes", "opencv-contrib-python")
        if not run(*pip, "--no-deps", "--force-reinstall", f"{HEADLESS}=={version}"):
            sys.exit("set_up: pip failed; its own message stands above")


def main(arguments: list[str]) -> None:
    extras = "[dev]" if "--dev" in arguments else ""
    pip_arguments = [argument for argument in arguments if argument != "--dev"]
    if version_of(str(in_venv("python"))) is None:
        python = pick_python([sys.executable, "python3.12", "python3.11", "python3.10", "python3", "python"])
        print(f"set_up: making .venv with {python}", flush=True)
        make_venv(python)
    print("set_up: installing the locked versions (a few minutes the first time)", flush=True)
    install(extras, pip_arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
