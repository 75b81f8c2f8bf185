"""Fetch the demo's photographs: real ones, taken out of the wheels of two Python packages.

Run it as ``python demo/photographs.py FOLDER`` with a Python that has pip. The packages are not installed, and a
second run fetches nothing. Each picture's licence is the one that its package states: scikit-image in the docstrings of
``skimage.data``, scikit-learn in ``sklearn/datasets/images/README.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCIKIT_IMAGE = "scikit-image==0.26.0"
SCIKIT_LEARN = "scikit-learn==1.9.1"
CC0 = "CC0 1.0"
CC_BY = "CC BY 2.0, https://creativecommons.org/licenses/by/2.0/"
PUBLIC_DOMAIN = "public domain"
UNRESTRICTED = "no known copyright restrictions"

# One platform's wheels for every machine, so that the bytes are the same everywhere; their code is never run.
ONE_PLATFORM = ("--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11")

# What real image folders also hold: an error page that was saved under a picture's name.
NOT_A_PICTURE = "not_a_picture.jpg"
ERROR_PAGE = """<!doctype html>
<html lang="en"><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The picture you asked for has moved; this page was saved in its place.</p></body>
</html>
"""


@dataclass(frozen=True)
class Photograph:
    """One picture in a package's wheel, with its credit and licence."""

    package: str
    member: str
    sha256: str
    credit: str
    licence: str

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]

    def is_in(self, folder: Path) -> bool:
        """Return whether the folder has exactly this picture."""
        path = folder / self.name
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


PHOTOGRAPHS = (
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "Astronaut Eileen Collins, NASA (https://flic.kr/p/r9qvLn)",
        PUBLIC_DOMAIN,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/brick.png",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        "Brick wall, CC0Textures (https://cc0textures.com/view.php?tex=Bricks25)",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "Cameraman, Lav Varshney",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "Chelsea the cat, Stefan van der Walt",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/clock_motion.png",
        "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        "Clock, taken with a moving camera, Stefan van der Walt",
        PUBLIC_DOMAIN,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "Coffee cup, Rachel Michetti, courtesy of Pikolo Espresso Bar",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/coins.png",
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        "Greek coins from Pompeii, Brooklyn Museum "
        "(https://www.brooklynmuseum.org/opencollection/archives/image/51611)",
        UNRESTRICTED,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/grass.png",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "Grass, linolafett (https://www.deviantart.com/linolafett/art/Grass-01-434853879)",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/gravel.png",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "Gravel, CC0Textures (https://cc0textures.com/view.php?tex=Gravel04)",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "Hubble eXtreme Deep Field, NASA (http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/)",
        PUBLIC_DOMAIN,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "Human retina, Mikael Häggström "
        "(https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg)",
        CC0,
    ),
    Photograph(
        SCIKIT_IMAGE,
        "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "Falcon 9 with DSCOVR, SpaceX (https://www.flickr.com/photos/spacexphotos/16511594820/in/photostream/)",
        PUBLIC_DOMAIN,
    ),
    Photograph(
        SCIKIT_LEARN,
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "Pagoda, danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035/)",
        CC_BY,
    ),
    Photograph(
        SCIKIT_LEARN,
        "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "Dahlia, vultilion (https://www.flickr.com/photos/vultilion/6056698931/); "
        "the package's README links to vultilion and names danielbuechele",
        CC_BY,
    ),
)


def fetch(folder: Path, photographs: Iterable[Photograph] = PHOTOGRAPHS) -> int:
    """Complete the folder of photographs and return the number of downloaded packages."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [photograph for photograph in photographs if not photograph.is_in(folder)]
    packages = sorted({photograph.package for photograph in missing})
    for package in packages:
        with tempfile.TemporaryDirectory(prefix="wheel-", dir=folder.parent) as wheels:
            _unpack(_download(package, Path(wheels)), [p for p in missing if p.package == package], folder)
    (folder / NOT_A_PICTURE).write_text(ERROR_PAGE, encoding="utf-8")
    # Written last: this file says that the folder is complete.
    (folder / "CREDITS.txt").write_text(credits_text(photographs), encoding="utf-8")
    return len(packages)


def credits_text(photographs: Iterable[Photograph] = PHOTOGRAPHS) -> str:
    """Return the credits: what each photograph shows, who took it, its licence and its source."""
    lines = ["The photographs in this folder, unchanged, as the named Python packages ship them.", ""]
    for photograph in photographs:
        lines += [
            photograph.name,
            f"    {photograph.credit}",
            f"    licence: {photograph.licence}",
            f"    found in: {photograph.package}, {photograph.member}",
            "",
        ]
    lines += [
        NOT_A_PICTURE,
        "    Not a photograph: a web page under a picture's name, which must be refused.",
    ]
    return "\n".join(lines) + "\n"


def _download(package: str, wheels: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *ONE_PLATFORM]
    found = subprocess.run([*pip, "--dest", str(wheels), package], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"Could not download {package}, which ships the photographs:\n{found.stderr.strip()}")
    return next(wheels.glob("*.whl"))


def _unpack(wheel: Path, photographs: Iterable[Photograph], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for photograph in photographs:
            (folder / photograph.name).write_bytes(archive.read(photograph.member))
            if not photograph.is_in(folder):
                raise SystemExit(
                    f"{photograph.name} from {wheel.name} is not the expected picture; its checksum differs."
                )


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("folder", type=Path, help="where the photographs go")
    folder: Path = arguments.parse_args().folder
    downloaded = fetch(folder)
    print(f"{len(PHOTOGRAPHS)} photographs in {folder} ({downloaded} packages downloaded)")


if __name__ == "__main__":
    main()
