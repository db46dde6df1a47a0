"""The images doctor: what in a folder of pictures stops training, and what is good to know."""

import os
import textwrap
import unicodedata
import warnings
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import joblib
import pandas as pd
from fastcore.parallel import parallel
from PIL import Image, UnidentifiedImageError

from .download import sha256
from .errors import FolderError
from .findings import BATCH, FINDINGS, HUGE, KNOW, SMALL, STOPS, UNEVEN
from .folders import odd_folders, picked
from .verdict import true_class

SHOWN = 3  # files named under each finding
WIDTH = 96  # characters a line: JupyterLab breaks a longer one in the middle of a word
STRAY = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".ipynb_checkpoints", "__macosx"}
ORIENTATION = 274  # the EXIF tag that says how the camera was held
COLUMNS = ["file", "problem", "问题", "stops training", "detail", "advice", "建议"]


class Picture(NamedTuple):
    """A file that fastai will take for a picture, and where it found it."""

    split: str
    label: str | None
    file: Path


def check_images(path):
    """Examine a folder of pictures, print what was found, and change nothing.

    Parameters
    ----------
    path : Path or str
        Holds `train` and `valid`, each with one folder a class, and perhaps `test`.

    Returns
    -------
    pandas.DataFrame
        One row a finding: file (or folder, below `path`), problem (a key of `FINDINGS`), 问题,
        stops training (bool), detail, advice, 建议. Those that stop training come first.

    Raises
    ------
    FolderError
        If `path` does not exist or is no folder. What lies in it never makes this function raise.
    """
    path, found = _folder(path), []
    pictures = _look_around(path, found)
    Image.init()  # lets Pillow know all its formats before several threads ask for them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is reported here in better words
        notes = parallel(
            _examine,
            [picture.file for picture in pictures],
            n_workers=min(4, joblib.cpu_count()),
            threadpool=True,
            progress=len(pictures) > 1000,
        )
    for picture, problems in zip(pictures, notes, strict=True):
        found += [(picture.file, problem, detail) for problem, detail in problems]
    broken = {file for file, problem, _ in found if FINDINGS[problem][1]}
    _compare([picture for picture in pictures if picture.file not in broken], found, path)
    table = _table(found, path)
    _print_summary(table, pictures)
    return table


def _folder(path):
    """Return `path` as a Path, if it is a folder."""
    path = Path(path)
    if not os.path.isdir(path):  # unlike Path.is_dir, it never raises
        kind = "is a file, not a folder" if os.path.exists(path) else "does not exist"
        raise FolderError(f"{path} {kind}. Name the folder that holds train and valid.")
    return path


def _look_around(path, found):
    """Return all pictures that fastai would take; add to `found` what is odd about the folders."""
    train, valid, test = (path / name for name in ("train", "valid", "test"))
    splits = {}
    if os.path.isdir(train):
        files, folders = _list(path, found)
        found += [(one, "stray file", "") for one in files + folders if _stray(one)]
        splits["train"] = _read_split(train, found)
    else:
        found.append((path, "no train folder", ""))
        splits["train"] = _read_split(path, found, skip=("valid", "test"))
    if os.path.isdir(valid):
        splits["valid"] = _read_split(valid, found)
    else:
        found.append((path, "no valid folder", ""))
    _judge_classes(splits, path, found)
    pictures = [
        Picture(split, label, file)
        for split, classes in splits.items()
        for label, files in classes.items()
        for file in files
    ]
    if os.path.isdir(test):
        for file in _all_below(test, found):
            if picked(file):
                label = true_class(file, list(splits["train"]))
                pictures.append(Picture("test", label, file))
                if label is None:
                    found.append((file, "test picture without a class", ""))
            else:
                _note_other(file, found)
    _note_odd_folders(path, found)
    return pictures


def _note_odd_folders(path, found):
    """Add the folders in which fastai would lose its way, unless they are known already."""
    known = {(place, problem) for place, problem, _ in found}
    odd = [one for one in odd_folders(path) if one not in known]
    # What is said of a folder inside a class is not true of these.
    above = {one for folder, _ in odd for one in (folder, *folder.parents)}
    found[:] = [one for one in found if one[1] != "nested folder" or one[0] not in above]
    found += [(folder, problem, "") for folder, problem in odd]


def _list(folder, found):
    """Return the files and the folders in a folder, two sorted lists of Path."""
    try:
        inside = [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        found.append((folder, "unreadable", error.strerror or ""))
        return [], []
    folders = [os.path.isdir(one) for one in inside]
    files = [one for one, is_folder in zip(inside, folders, strict=True) if not is_folder]
    return files, [one for one, is_folder in zip(inside, folders, strict=True) if is_folder]


def _all_below(folder, found):
    """Yield all files below a folder; each real folder once, so that links cannot lead round."""
    todo, seen = [folder], set()
    while todo:
        folder = todo.pop()
        if (real := os.path.realpath(folder)) not in seen:
            seen.add(real)
            files, folders = _list(folder, found)
            yield from files
            found += [(one, "stray file", "") for one in folders if _stray(one)]
            todo += [one for one in reversed(folders) if not _hidden(one)]


def _read_split(folder, found, skip=()):
    """Return the picture files of each class in `train` or `valid`, a dict of lists.

    What fastai passes over is added to `found`.
    """
    classes = {}
    beside, folders = _list(folder, found)
    for file in beside:
        if picked(file):
            found.append((file, "outside a class", ""))
        elif _stray(file) or not skip:  # a README beside the classes is nobody's mistake
            _note_other(file, found)
    for sub in folders:
        if _hidden(sub) or sub.name in skip:
            found += [(sub, "stray file", "")] if _stray(sub) else []
            continue
        files, deeper = _list(sub, found)
        classes[sub.name] = [file for file in files if picked(file)]
        if _stray(sub) and not classes[sub.name]:
            found.append((sub, "stray file", ""))
            continue
        for file in files:
            if not picked(file):
                _note_other(file, found)
        for inner in deeper:
            if _stray(inner):
                found.append((inner, "stray file", ""))
            elif not _hidden(inner):
                count = sum(map(picked, _all_below(inner, [])))
                found.append((inner, "nested folder", str(count)))
        if not _count(classes[sub.name]):
            found.append((sub, "empty class", ""))
    return classes


def _count(files):
    """Count the files that are there: not links that lead nowhere."""
    return sum(map(os.path.isfile, files))


def _stray(file):
    """Tell whether a file or folder is litter of the system or of Jupyter."""
    return file.name.lower() in STRAY or file.name.startswith("._")


def _hidden(folder):
    """Tell whether fastai passes over a folder whole."""
    return folder.name.startswith(".")


def _note_other(file, found):
    """Add a file that is not taken for a picture, and its format if it is one after all."""
    if _stray(file):
        found.append((file, "stray file", ""))
    elif not file.name.startswith("."):
        found.append((file, "passed over", _format_of(file)))


def _format_of(file):
    """Return the format of a picture, whatever its name; "" if there is none to be read."""
    try:
        if os.path.isfile(file):  # opening a pipe would wait for ever
            with Image.open(file) as picture:
                return picture.format
    except Exception:  # Pillow's readers raise all sorts of errors on bytes that mean nothing
        pass
    return ""


def _judge_classes(splits, path, found):
    """Compare the classes of train and valid, given as {split: {class: files}}."""
    counts = {
        split: {label: n for label, files in classes.items() if (n := _count(files))}
        for split, classes in splits.items()
    }
    train, root = counts["train"], path / "train"
    if not os.path.isdir(root):
        root = path
        if not train:
            return  # nothing to compare with; "no train folder" says it all
    if len(train) < 2:
        found.append((root, "fewer than two classes", ", ".join(train)))
    if sum(train.values()) < BATCH:
        found.append((root, "too few pictures", str(sum(train.values()))))
    if train and max(train.values()) > UNEVEN * min(train.values()):
        sizes = [f"{label} {train[label]}" for label in sorted(train, key=train.get, reverse=True)]
        found.append((root, "imbalance", f"{sizes[0]} : {sizes[-1]}"))
    if "valid" in counts:
        for label in sorted(set(train) - set(counts["valid"])):
            found.append((root / label, "class only in train", ""))
        for label in sorted(set(counts["valid"]) - set(train)):
            found.append((path / "valid" / label, "class only in valid", ""))
    alike = defaultdict(set)
    for label in sorted({label for classes in splits.values() for label in classes}):
        alike[unicodedata.normalize("NFKC", label).casefold().strip()].add(label)
    for names in alike.values():
        if len(names) > 1:
            found.append((path, "names almost alike", ", ".join(sorted(names))))


_huge_ones = Lock()  # pictures of very many pixels are decoded one at a time, to spare memory


def _examine(file):
    """Look at one picture as fastai would.

    Returns
    -------
    list of (str, str)
        Problem (a key of `FINDINGS`) and detail.
    """
    try:
        if not os.path.isfile(file):  # a broken link, or a pipe, on which opening would hang
            return [("unreadable", "")]
        with open(file, "rb") as stream:
            stream.read(1)
            stream.seek(0)
            return _examine_content(stream, "." + file.name.split(".")[-1].lower())
    except OSError as error:
        return [("unreadable", error.strerror or "")]


def _examine_content(stream, extension):
    """Read header first, then decode: only decoding shows whether all of a picture is there."""
    try:
        picture = Image.open(stream)
    except UnidentifiedImageError:
        return [("not an image", "")]
    except Image.DecompressionBombError:
        return [("far too huge", "")]
    except Exception as error:  # Pillow's readers raise all sorts of errors on damaged bytes
        return [_damage(error)]
    size, pixels = f"{picture.width} x {picture.height}", picture.width * picture.height
    notes = []
    if min(picture.size) < SMALL:
        notes.append(("tiny", size))
    if pixels > HUGE:
        notes.append(("huge", size))
    if picture.mode == "CMYK":
        notes.append(("CMYK", ""))
    if picture.mode.startswith(("I", "F")):
        notes.append(("16-bit or more", f"mode {picture.mode}"))
    kind = "JPEG" if picture.format == "MPO" else picture.format  # MPO: what many phones write
    if Image.registered_extensions().get(extension) != kind:
        notes.append(("wrong extension", kind))
    try:
        # A JPEG can be decoded to an eighth of its size, which still reads the file to its end.
        picture.draft(picture.mode, (32, 32))
        with _huge_ones if pixels > HUGE else nullcontext():
            notes += _decode(picture)
    except Exception as error:
        return [_damage(error)]
    return notes + _marks(picture)


def _damage(error):
    """Sort an error of Pillow's."""
    return ("truncated" if "truncated" in str(error).lower() else "damaged", "")


def _decode(picture):
    """Decode as fastai does, to RGB; note transparency, if any pixel has it."""
    picture.load()
    if picture.mode != "RGB":
        picture.convert("RGB")
    if picture.has_transparency_data:
        lowest, _ = picture.convert("RGBA").getchannel("A").getextrema()
        if lowest < 255:
            return [("transparent", "")]
    return []


def _marks(picture):
    """Note what fastai does not read: further frames, and how the camera was held."""
    notes = []
    try:
        if picture.getexif().get(ORIENTATION) in range(2, 9):
            notes.append(("rotated", ""))
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            notes.append(("animated", ""))
    except Exception:  # damaged marks; fastai does not read them either
        pass
    return notes


def _compare(pictures, found, path):
    """Find files with the same bytes, and say what makes that harmful."""
    places = {picture.file: picture for picture in pictures}
    for first, *copies in _same_bytes(list(places)):
        for file in copies:
            if places[file].split != places[first].split:
                problem = "in two splits"
            elif places[file].label != places[first].label:
                problem = "in two classes"
            else:
                problem = "duplicate"
            found.append((file, problem, f"= {_name(first, path)}"))


def _same_bytes(files):
    """Return lists of files that are equal byte for byte, each in the order given."""
    by_size, by_hash = defaultdict(list), defaultdict(list)
    for file in files:
        by_size[_or_none(os.path.getsize, file)].append(file)
    for same in by_size.values():
        if len(same) > 1:  # only files of one length can be equal; most need not be read
            for file in same:
                by_hash[_or_none(sha256, file)].append(file)
    return [same for digest, same in by_hash.items() if digest and len(same) > 1]


def _or_none(ask, file):
    """Ask something of a file; None if it cannot be read any more."""
    try:
        return ask(file)
    except OSError:
        return None


def _name(file, path):
    """Return a file's name below `path`, with characters that cannot be printed written out."""
    name = file.relative_to(path).as_posix()
    return _printable("." if name == "." else name)


def _printable(text):
    """Write out what would break a line or cannot be encoded."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _table(found, path):
    """Make the table of findings, those that stop training first."""
    order = list(FINDINGS)
    rows = []
    for file, problem, detail in sorted(found, key=lambda one: order.index(one[1])):
        chinese, stops, advice, 建议 = FINDINGS[problem]
        rows.append((_name(file, path), problem, chinese, stops, _printable(detail), advice, 建议))
    return pd.DataFrame(rows, columns=COLUMNS)


def _print_summary(table, pictures):
    """Print each kind of finding once, in English and in Chinese, with its first files."""
    counts = {s: sum(p.split == s for p in pictures) for s in ("train", "valid", "test")}
    print(f"{len(pictures)} pictures:", ", ".join(f"{s} {n}" for s, n in counts.items()))
    print(f"共 {len(pictures)} 张图片：", "，".join(f"{s} {n}" for s, n in counts.items()), sep="")
    for stops, title in ((STOPS, "STOPS TRAINING 会让训练停下"), (KNOW, "GOOD TO KNOW 仅供参考")):
        part = table[table["stops training"] == stops]
        if len(part):
            print(f"\n{title}")
        for problem, same in part.groupby("problem", sort=False):
            chinese, _, advice, 建议 = FINDINGS[problem]
            english = f"{'✗' if stops else '•'} {problem} ({len(same)}): {advice}"
            print(textwrap.fill(english, WIDTH, subsequent_indent="  ", break_long_words=False))
            print(f"  {chinese}（{len(same)}）：{建议}")
            for row in same.head(SHOWN).itertuples():
                print(f"      {row.file}" + (f" ({row.detail})" if row.detail else ""))
            if len(same) > SHOWN:
                print(f"      ... and {len(same) - SHOWN} more / 另有 {len(same) - SHOWN} 个")
    stop = int(table["stops training"].sum())
    rest = len(table) - stop
    english, chinese = "Nothing here stops training.", "没有会让训练停下的问题。"
    if stop:
        english = f"Findings that stop training: {stop}; put these right first."
        chinese = f"会让训练停下的问题有 {stop} 处，请先处理。"
    print(f"\n{english} Good to know: {rest}. No file was changed.")
    print(f"{chinese}其余仅供参考的有 {rest} 处。没有改动任何文件。")
