"""`nextface prior`: files and folders, bad pictures among them, crops and whole maps out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_bundle import BUNDLE_SIZES, CHANNELS, save_known_bundle, save_network
from known_prior import ENCODING, SIZE
from PIL import Image
from torch import Tensor

from nextface import cli, prior_commands
from nextface.errors import NoFaceError
from nextface.landmarks.points import Landmarks
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.bundle import Bundle
from nextface.prior.crops import TEMPLATE, TEMPLATE_SIZE
from nextface.prior.pictures import read_crop
from nextface.prior.projection import Projection
from nextface.prior.swapping import Swapping

POINTS = {(33, 133, 159, 145): 0, (362, 263, 386, 374): 1, (1,): 2, (61,): 3, (291,): 4}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_known_bundle(tmp_path_factory.mktemp("prior"), read_open_head(default_model_folder() / "open_head.h5"))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "set_threads", lambda config, environment: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of two crops and a file that is none."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        save_noise(folder / name, SIZE, SIZE, seed=number)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def save_noise(path: Path, height: int, width: int, seed: int) -> Path:
    """Large blots of colour."""
    blots = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def run(*words: object) -> int:
    return cli.main(["prior", *(str(word) for word in words), "--device", "cpu"])


def saved(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).float()


def test_crops_of_a_folder_pass_the_network_and_a_bad_one_fails_alone(bundle, crops: Path, capsys):
    words = ("reconstruct", crops, "-o", "out", "--aligned", "--domain", "specular", "--checkpoint", bundle)
    assert run(*words, "--suffix", "seen") == cli.BATCH_FAILED
    told = capsys.readouterr()
    assert "2 of 3 pictures done" in told.out and "failed: " in told.out and "broken.png" in told.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_seen.png", "b_seen.png"]
    answer = Projection.read(bundle, torch.device("cpu"))(read_crop(crops / "a.png", "specular", ENCODING))
    weight = ENCODING.decode("specular", answer)[0, 0]
    assert float((saved(Path("out") / "a_seen.png") / 255.0 - weight).abs().max()) < 0.51 / 255.0


def test_one_bad_picture_is_an_error_of_its_own(bundle, crops: Path, capsys):
    assert run("reconstruct", crops / "broken.png", "-o", "out", "--aligned", "--checkpoint", bundle) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert run("reconstruct", crops / "none.png", "-o", "out", "--checkpoint", bundle) == 3
    assert "none.png: no such file or folder; check INPUT" in capsys.readouterr().err
    assert not list(Path("out").iterdir())


def test_results_replace_neither_inputs_nor_each_other(bundle, crops: Path, capsys):
    before = (crops / "a.png").read_bytes()
    assert run("reconstruct", crops / "a.png", "-o", crops, "--aligned", "--checkpoint", bundle) == 3
    assert "would replace the input" in capsys.readouterr().err
    assert (crops / "a.png").read_bytes() == before
    save_noise(crops / "a.bmp", SIZE, SIZE, seed=5)
    assert run("reconstruct", crops, "-o", "out", "--aligned", "--checkpoint", bundle) == cli.BATCH_FAILED
    assert "is already the result of a.bmp" in capsys.readouterr().err


def landmarks(window: tuple[float, float, float]) -> Landmarks:
    """Of a face whose crop as FFHQ's is a window: left, top and side in pixels."""
    left, top, side = window
    places = torch.tensor(TEMPLATE) * (side / TEMPLATE_SIZE) + torch.tensor([left, top])
    index, points = [], []
    for numbers, place in POINTS.items():
        index += numbers
        points += [places[place]] * len(numbers)
    return Landmarks("mediapipe", torch.tensor(index), torch.stack(points), torch.ones(len(index)))


def test_the_face_of_each_photo_is_cut_out_by_its_own_landmarks(bundle, tmp_path: Path, monkeypatch, capsys):
    """The second photo holds the first one's face elsewhere and twice as large; the third holds none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    face = Image.open(save_noise(tmp_path / "face.png", 160, 160, seed=3))
    for name, size, place in (("1.png", 160, (40, 60)), ("2.png", 320, (10, 20)), ("3.png", 160, (0, 0))):
        whole = Image.new("RGB", (400, 400), (9, 9, 9))
        whole.paste(face.resize((size, size), Image.Resampling.BICUBIC), place)
        whole.save(folder / name)
    found = {"1.png": landmarks((40, 60, 160)), "2.png": landmarks((10, 20, 320))}

    def detect(photo, kind, model):
        assert (kind, model) == ("mediapipe", "")
        if photo.path.name not in found:
            raise NoFaceError("none")
        return [found[photo.path.name]]

    monkeypatch.setattr(prior_commands, "detect", detect)
    monkeypatch.setattr(Projection, "__call__", lambda self, crops: crops)
    assert run("reconstruct", folder, "-o", "out", "--checkpoint", bundle) == cli.BATCH_FAILED
    assert "3.png: no face was found" in capsys.readouterr().err
    one, two = (saved(Path("out") / name) for name in ("1.png", "2.png"))
    assert float((one - two).abs().mean()) < 3.0
    assert float(one.std()) > 20.0


def test_beyond_the_frame_is_mid_grey(bundle, tmp_path: Path, monkeypatch):
    path = tmp_path / "photo.png"
    Image.new("RGB", (100, 100), (255, 255, 255)).save(path)
    monkeypatch.setattr(prior_commands, "detect", lambda photo, kind, model: [landmarks((50, 0, 100))])
    crop = prior_commands.Pictures([path], aligned=False).crop(path, ENCODING, prior_commands.OptimConfig())
    assert float(crop[..., : SIZE // 2 - 3].min()) > 0.99
    assert float(crop[..., SIZE // 2 + 3 :].abs().max()) == 0.0


def test_every_template_with_every_identity(bundle, crops: Path, tmp_path: Path, capsys):
    people = tmp_path / "people"
    people.mkdir()
    for number, name in enumerate(("x.png", "y.png")):
        save_noise(people / name, SIZE, SIZE, seed=10 + number)
    words = ("swap", crops, "-r", people, "-o", "out", "--aligned", "both", "--domain", "diffuse")
    assert run(*words, "--checkpoint", bundle) == cli.BATCH_FAILED
    assert "4 of 5 pictures done" in capsys.readouterr().out
    names = ["x_a.png", "x_b.png", "y_a.png", "y_b.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    swapping = Swapping(Bundle.read(bundle, torch.device("cpu")), bundle)
    identity = swapping.identity(read_crop(people / "y.png", "shared", ENCODING))
    swapped = swapping.swap(read_crop(crops / "b.png", "diffuse", ENCODING), identity)
    expected = prior_commands.picture_of("diffuse", swapped, ENCODING)
    assert np.array_equal(np.array(Image.open(Path("out") / "y_b.png")), expected)
    assert run("swap", crops / "a.png", "-r", people / "x.png", "-o", "one", *words[6:], "--checkpoint", bundle) == 0
    assert (Path("one") / "x_a.png").read_bytes() == (Path("out") / "x_a.png").read_bytes()


def test_whole_maps_of_the_nearest_template(bundle, tmp_path: Path, capsys, monkeypatch):
    reference = save_noise(tmp_path / "me.png", SIZE, SIZE, seed=4)
    monkeypatch.setattr(Swapping, "identity", lambda self, crop: torch.eye(CHANNELS)[1])
    monkeypatch.setattr(Swapping, "swap", lambda self, crops, identity: crops)
    words = ("swap", "-r", reference, "-o", "out", "--aligned", "references", "--checkpoint", bundle, "--suffix", "t")
    assert run(*words) == 0
    folder = Path("out") / "me_t"
    names = [f"{name}Map_0.png" for name in ("diffuse", "specular", "roughness", "normal")]
    assert capsys.readouterr().out.split() == [str(folder / name) for name in (*names, "crops.png")]
    diffuse, specular, roughness, normal = (saved(folder / name) for name in names)
    assert diffuse.shape == (64, 64, 3) and specular.shape == (64, 64)
    grey = [float(each.mean()) / 255.0 for each in (specular, roughness)]
    assert grey == pytest.approx([0.55, 0.45], abs=0.01)  # of a tone of 0.3
    assert float(diffuse[..., 0].mean()) / 255.0 == pytest.approx(0.584, abs=0.01)  # 0.3 in sRGB
    assert float((normal - torch.tensor([128.0, 128.0, 255.0])).abs().max()) <= 1.0
    assert Image.open(folder / "crops.png").size == (12 * SIZE, 2 * SIZE)


def test_what_cannot_be_used_is_one_line(bundle, crops: Path, tmp_path: Path, capsys, monkeypatch):
    def fails(code: int, message: str, *words: object) -> None:
        assert run(*words) == code
        told = capsys.readouterr().err
        assert told.startswith("nextface: error: ") and told.count("\n") == 1 and message in told, told

    longer = replace(BUNDLE_SIZES, identity=replace(BUNDLE_SIZES.identity, embedding_channels=9))
    wrong = save_network(tmp_path / "wrong.safetensors", "IdentityEncoder", longer)
    aligned = ("--aligned", "references", "-o", "out")
    fails(3, "takes identities of 5 numbers, but the identity encoder gives 9",
          "swap", "-r", crops / "a.png", *aligned, "--checkpoint", bundle, "--identity", wrong)  # fmt: skip
    monkeypatch.setattr(prior_commands, "installed_prior", lambda checkpoint: None)
    fails(3, "no prior is installed; give the file of a trained one", "swap", "-r", crops / "a.png", *aligned)
    fails(2, "name the crops to swap", "swap", "-r", crops / "a.png", "--domain", "normal", "-o", "out")
    fails(2, "--references", "swap", "-o", "out")
    fails(2, "invalid choice", "mend")
    fails(2, "unknown option", "reconstruct", crops, "-o", "out", "--iterStep2", "3")
