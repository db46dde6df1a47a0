"""What in a folder of pictures stops training, and what is good to know: the images doctor."""

import os
import textwrap
import warnings
from collections import Counter
from pathlib import Path

import joblib
import pandas as pd
from fastcore.parallel import parallel
from PIL import Image

from ..download import sha256
from ..errors import FolderError
from .findings import KNOW, PROBLEMS, STOPS, Finding, printable, worst_first
from .layout import SPLITS, count, read_folder
from .reading import examine, format_of

SHOWN = 3  # files named under each finding
WIDTH = 96  # characters a line: JupyterLab breaks a longer one in the middle of a word
COLUMNS = ["file", "problem", "问题", "stops training", "detail", "advice", "建议"]


def check_folder(path):
    """Count the pictures of each class and split; step 1.

    Parameters
    ----------
    path : Path or str
        Holds `train` and `valid`, each with one folder a class, and perhaps `test`.

    Returns
    -------
    dict of str to dict of str to int
        For "train" and "valid", how many pictures each class has.

    Raises
    ------
    FolderError
        Says the first of what `check_images` would say of folders that stop training.
    """
    return count(usable_pictures(path))


def usable_pictures(path):
    """Return the pictures of a folder, as `read_folder` does, or raise as `check_folder` does."""
    pictures, findings = read_folder(path)
    for finding in worst_first(findings):
        if finding.stops:
            raise FolderError(f"{finding} check_images(path) tells more.")
    return pictures


def check_images(path):
    """Examine a folder of pictures, print what was found, and change nothing; step 23.

    Parameters
    ----------
    path : Path or str
        As `check_folder` takes it.

    Returns
    -------
    pandas.DataFrame
        One row a finding: file (or folder, below `path`), problem (a key of `PROBLEMS`), 问题,
        stops training (bool), detail, advice, 建议. Those that stop training come first.

    Raises
    ------
    FolderError
        If `path` does not exist or is no folder. What lies in it never makes this function raise.
    """
    path = Path(path)
    pictures, findings = read_folder(path)
    Image.init()  # lets Pillow know all its formats before several threads ask for them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is reported here in better words
        examined = parallel(
            examine,
            [picture.file for picture in pictures],
            n_workers=min(4, joblib.cpu_count()),
            threadpool=True,
            progress=len(pictures) > 1000,
        )
    findings += [finding for one in examined for finding in one]
    broken = {finding.place for finding in findings if finding.stops}
    findings += copies([one for one in pictures if one.file not in broken], path)
    table = as_table(findings, path)
    print_summary(table, pictures)
    return table


def copies(pictures, path):
    """Yield a finding for each file with the same bytes as one before; say how harmful that is."""
    sizes, seen = [os.path.getsize(one.file) for one in pictures], {}
    alike = Counter(sizes)
    for one, size in zip(pictures, sizes, strict=True):
        if alike[size] > 1:  # else it has no equal and need not be read
            first = seen.setdefault(sha256(one.file), one)
            problem = "duplicate"
            if one.split != first.split:
                problem = "in two splits"
            elif one.label != first.label:
                problem = "in two classes"
            if one is not first:
                yield Finding(one.file, problem, f"= {name_below(first.file, path)}")


def name_below(file, path):
    """Return a file's name below `path`, with characters that cannot be printed written out."""
    return printable(file.relative_to(path).as_posix())


def as_table(findings, path):
    """Return the table of findings, those that stop training first."""
    rows = []
    for place, problem, detail in worst_first(findings):
        detail = format_of(place) if problem == "passed over" else printable(detail)
        chinese, stops, *advice = PROBLEMS[problem]
        rows.append((name_below(place, path), problem, chinese, stops, detail, *advice))
    return pd.DataFrame(rows, columns=COLUMNS)


def print_summary(table, pictures):
    """Print each kind of finding once, in English and in Chinese, with its first files."""
    counts = [f"{split} {sum(one.split == split for one in pictures)}" for split in SPLITS]
    print(f"{len(pictures)} pictures:", ", ".join(counts))
    print(f"共 {len(pictures)} 张图片：", "，".join(counts), sep="")
    for stops, title in ((STOPS, "STOPS TRAINING 会让训练停下"), (KNOW, "GOOD TO KNOW 仅供参考")):
        part = table[table["stops training"] == stops]
        if len(part):
            print(f"\n{title}")
        for problem, same in part.groupby("problem", sort=False):
            chinese, _, advice, advice_zh = PROBLEMS[problem]
            english = f"{'✗' if stops else '•'} {problem} ({len(same)}): {advice}"
            print(textwrap.fill(english, WIDTH, subsequent_indent="  ", break_long_words=False))
            print(f"  {chinese}（{len(same)}）：{advice_zh}")
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
