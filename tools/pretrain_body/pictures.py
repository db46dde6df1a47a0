"""Fetch the pictures that the body learns from, out of Debian's packages, into two files.

    python tools/pretrain_body/pictures.py                    where there is apt
    python tools/pretrain_body/pictures.py --debs FOLDER      from .deb files that lie there

`PACKAGES` names each package with its checksum and the licences of its pictures. A file that is
there already, whole, is not fetched again. Written are `photos.npy` and `cutouts.npy`, the pixels
one after the other, with an index beside each (see `Bank`). Nothing is installed, and no picture
of `imgs/` is read.
"""

import argparse
import csv
import hashlib
import io
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "out" / "pictures"
PHOTO_SIDE, CUTOUT_SIDE = 1024, 256  # the longer side at most, in pixels
SMALLEST = {"photos": 150, "cutouts": 40}  # the shorter side at least
Image.MAX_IMAGE_PIXELS = None  # wallpapers are large, and these packages are trusted


class Package(NamedTuple):
    """A Debian package: which of its files are used, as what, and under which licences."""

    name: str
    sha256: str
    licences: str
    files: str  # a regular expression that is searched for in each path
    kinds: tuple = ("photos", "cutouts")


WALLPAPER = r"\.(jpe?g|png|webp)$"
PACKAGES = (
    Package(
        "tuxpaint-stamps-default",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "GPL-2",
        r"stamps/(?!symbols/(alphabets|math|money|shapes)).*\.png$",
        ("cutouts",),
    ),
    Package(
        "openclipart-png",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        "public domain",
        r"png/(animals|buildings|containers|decorations|education|electronics|food|office|people"
        r"|plants|recreation|science|tools|transportation|unsorted)/.*\.png$",
        ("cutouts",),
    ),
    Package(
        "fonts-noto-color-emoji",
        "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
        "OFL-1.1, Apache-2.0",
        r"\.ttf$",
        ("cutouts",),
    ),
    Package(
        "sweethome3d-furniture",
        "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
        "CC-BY-3.0, CC0",
        r"\.sh3f$",
        ("cutouts",),
    ),
    Package(
        "wesnoth-1.16-data",
        "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
        "GPL-2+",
        r"images/portraits/.*\.(png|webp)$",
    ),
    Package(
        "endless-sky-data",
        "e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13",
        "CC-BY-SA-4.0, CC-BY-SA-3.0, CC-BY-4.0, public domain",
        r"images/(land|scene|ship|outfit|planet)/.*\.(jpe?g|png)$",
    ),
    Package(
        "gcompris-qt-data",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        "CC-BY-SA-4.0, CC-BY-SA-3.0, CC-BY-2.0, CC0, GPL-3+, public domain",
        r"\.rcc$",
    ),
    Package(
        "gnome-backgrounds",
        "a670dea21572652127d6e55f9cdb3a226d0037854fdbfd037003c7d00ee0dc4e",
        "CC-BY-SA-3.0",
        WALLPAPER,
        ("photos",),
    ),
    Package(
        "lomiri-wallpapers-16.04",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "CC-BY-4.0, CC-BY-SA-4.0, CC0",
        WALLPAPER,
        ("photos",),
    ),
    Package(
        "lomiri-wallpapers-20.04",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
        "CC-BY-4.0, CC-BY-SA-4.0, CC0",
        WALLPAPER,
        ("photos",),
    ),
    Package(
        "mate-backgrounds",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "GPL-2+, CC-BY-SA-4.0",
        WALLPAPER,
        ("photos",),
    ),
    Package(
        "plasma-workspace-wallpapers",
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
        "LGPL-3, CC-BY-SA-4.0",
        r"(1920x1080|2560x1600|3840x2160|5120x2880)\.(jpe?g|png)$",
        ("photos",),
    ),
    Package(
        "sway-backgrounds",
        "bbd637e4a27eb305beb88f2a5ba34ab53f86b2027066ffe3ed814d6b221220b5",
        "MIT",
        WALLPAPER,
        ("photos",),
    ),
    Package(
        "ukui-wallpapers",
        "6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
        "CC-BY-SA-3.0",
        WALLPAPER,
        ("photos",),
    ),
)


# ---------------------------------------------------------------- fetching


def checksum(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_deb(package, folder):
    """Return the package's .deb in a folder, whole and in the expected version, or None."""
    for path in sorted(folder.glob(f"{package.name}_*.deb")):
        if checksum(path) == package.sha256:
            return path
    return None


def fetch(package, folder):
    """Return the path of a package's .deb, downloaded by apt unless it is there.

    Raises
    ------
    SystemExit
        If it can't be had, in one sentence that names the package.
    """
    path = find_deb(package, folder)
    if path:
        return path
    try:
        done = subprocess.run(
            ["apt-get", "download", package.name], cwd=folder, capture_output=True, text=True
        )
        why = done.stderr.strip().splitlines()[-1:] or ["apt-get brought another version"]
    except FileNotFoundError:
        why = ["there is no apt-get on this machine"]
    path = find_deb(package, folder)
    if path is None:
        raise SystemExit(
            f"{package.name} with SHA-256 {package.sha256[:12]}... can't be had: {why[0]}. "
            f"Put its .deb file (Debian 12) into {folder} and start again."
        )
    return path


# ---------------------------------------------------------------- reading


def deb_members(path):
    """Yield (path, bytes) of the files in a .deb: an ar archive around a compressed tar.

    Format: https://manpages.debian.org/deb.5
    """
    with open(path, "rb") as file:
        file.seek(8)
        while header := file.read(60):
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                with tarfile.open(fileobj=file, mode="r|*") as archive:
                    for member in archive:
                        if member.isfile():
                            yield member.name, archive.extractfile(member).read()
                return
            file.seek(size + size % 2, 1)


def unpack(name, data):
    """Yield the encoded pictures in a file: itself, or those inside a zip, font or Qt resource."""
    if name.endswith(".sh3f"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(n) for n in archive.namelist() if n.endswith(".png"))
    elif name.endswith(".ttf"):
        from fontTools.ttLib import TTFont  # Matplotlib brings it

        for glyphs in TTFont(io.BytesIO(data))["CBDT"].strikeData:
            yield from (glyph.imageData for glyph in glyphs.values())
    elif name.endswith(".rcc"):  # pictures lie in it uncompressed; each begins with its magic bytes
        starts = re.finditer(rb"RIFF....WEBP|\xff\xd8\xff[\xe0\xe1]|\x89PNG\r\n", data, re.DOTALL)
        yield from (data[start.start() :] for start in starts)
    else:
        yield data


def decode(data):
    """Return the kind ("photos" or "cutouts") and pixels of an encoded picture, or None."""
    try:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (PHOTO_SIDE, PHOTO_SIDE))
        image = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError):  # not a picture after all
        return None
    alpha = np.asarray(image.getchannel("A"))
    covered = float((alpha > 127).mean())
    if covered < 0.03:
        return None
    if covered < 0.97:
        kind, side = "cutouts", CUTOUT_SIDE
        image = image.crop(Image.fromarray(alpha).getbbox())
    else:
        kind, side = "photos", PHOTO_SIDE
        image = image.convert("RGB")
    shorter = min(image.size)
    image.thumbnail((side, side) if kind == "cutouts" else (2 * side, side), Image.LANCZOS)
    return (kind, np.asarray(image)) if shorter >= SMALLEST[kind] else None


# ---------------------------------------------------------------- keeping


class Bank:
    """Pictures of one kind, read from disk only where they are looked at.

    Parameters
    ----------
    folder : Path
    kind : str
        "photos" (RGB) or "cutouts" (RGB and alpha).

    Attributes
    ----------
    sources : list of str
        The package of each picture.
    """

    def __init__(self, folder, kind):
        index = folder / f"{kind}.csv"
        if not index.exists():
            raise SystemExit(f"{index} is missing: run tools/pretrain_body/pictures.py first.")
        self.pixels = np.load(folder / f"{kind}.npy", mmap_mode="r")
        with index.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.sources = [row["package"] for row in rows]
        self.shapes = [tuple(int(row[k]) for k in ("height", "width", "channels")) for row in rows]
        self.starts = np.cumsum([0] + [int(np.prod(shape)) for shape in self.shapes])

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, i):
        """The i-th picture, uint8, shape (height, width, channels)."""
        return self.pixels[self.starts[i] : self.starts[i + 1]].reshape(self.shapes[i])


def build(debs, folder):
    """Write both banks from the packages, each picture once; return how many of each there are."""
    kept = {"photos": [], "cutouts": []}
    rows = {"photos": [], "cutouts": []}
    seen = set()
    for package in tqdm(PACKAGES, "packages"):
        for name, data in deb_members(fetch(package, debs)):
            if not re.search(package.files, name):
                continue
            for encoded in unpack(name, data):
                kind, pixels = decode(encoded) or (None, None)
                if kind not in package.kinds:
                    continue
                digest = hashlib.sha256(pixels).digest()
                if digest not in seen:
                    seen.add(digest)
                    kept[kind].append(pixels.ravel())
                    rows[kind].append((package.name, *pixels.shape))
    for kind in kept:
        np.save(folder / f"{kind}.npy", np.concatenate(kept[kind]))
        with (folder / f"{kind}.csv").open("w", newline="") as file:  # last: it says "complete"
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["package", "height", "width", "channels"])
            writer.writerows(rows[kind])
    return {kind: len(pictures) for kind, pictures in kept.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--debs", type=Path, help="folder of .deb files; fetched into it if missing"
    )
    parser.add_argument("--to", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.debs = args.debs or args.to / "debs"
    args.debs.mkdir(parents=True, exist_ok=True)
    args.to.mkdir(parents=True, exist_ok=True)
    counts = build(args.debs.resolve(), args.to)
    for package in PACKAGES:
        print(f"{package.name}: {package.licences}")
    print(f"{args.to}: {counts['photos']} photos and paintings, {counts['cutouts']} cut-outs")


if __name__ == "__main__":
    main()
