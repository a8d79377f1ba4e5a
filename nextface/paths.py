"""Where the files that ship with the project are: the default model, the default settings, the sample photo.

In a checkout (also one installed with `pip install -e .`) they lie beside the package and are taken from there, so that an
edited ini or a licensed model dropped into baselMorphableModel/ counts at once. An installed wheel carries copies of them
in nextface/data, laid out as in the checkout.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STOCK_MODEL_FOLDER = "./baselMorphableModel"
"""NextFace's shipped `path`: the folder in a checkout, and our word for the default model everywhere else."""


def data_root() -> Path:
    """The folder that holds optimConfig.ini, baselMorphableModel/ and resources/."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "baselMorphableModel").is_dir():
        return checkout
    return PACKAGE / "data"


def default_model_folder() -> Path:
    """The folder of the open head model, or of the licensed model that the user put into its place in a checkout."""
    return data_root() / "baselMorphableModel"


def default_config() -> Path:
    """The optimConfig.ini with every setting and its default."""
    return data_root() / "optimConfig.ini"


def resource(name: str) -> Path:
    """A file of resources/, by name."""
    return data_root() / "resources" / name


def model_folder(path: str | Path) -> Path:
    """The folder meant by the `path` setting.

    A folder that exists under the working directory wins. The stock value, where there is none, is the default model, so that
    an ini of NextFace works from any folder. Anything else is returned unchanged: the model reader says what is missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() and folder == Path(STOCK_MODEL_FOLDER):
        return default_model_folder()
    return folder
