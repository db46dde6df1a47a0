"""What can be judged without running anything: the stored notebook, the pins, the files' text."""

import base64
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import NOTEBOOK, ROOT, code_cells, project_files
from promises import promises
from rattler import MatchSpec

from tools.run_notebook import headings, without_link

# Written in pieces, so that this file passes its own test.
INDEX_HOSTS = re.compile(
    "|".join(
        [r"pypi\." + "org", r"python" + r"hosted\.org", r"pytorch\.org" + "/whl"]
        + [r"anaconda\." + "org/", r"repo\.anaconda", r"https?://[^\s)\"']*" + r"/simple\b"]
    )
)
MACHINE_PATHS = re.compile("|".join([r"/work/" + r"(main|shared)", "/tmp" + "/w/", "/root" + "/"]))
# In the notebook no absolute path has any business at all.
ABSOLUTE_PATHS = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|opt|usr|mnt)/|[A-Z]:\\Users")
TEXT_ENDINGS = {
    ".md",
    ".py",
    ".txt",
    ".in",
    ".yml",
    ".yaml",
    ".toml",
    ".cfg",
    ".json",
    ".csv",
    ".sh",
}
TEXT_NAMES = {"Makefile", "LICENSE", "run", ".gitignore", ".gitattributes"}


def sources(nb, kind):
    return [cell.source for cell in nb.cells if cell.cell_type == kind]


def lines_of_code(source):
    """The lines that are neither blank nor only a comment."""
    return [s for s in source.splitlines() if s.strip() and not s.strip().startswith("#")]


def output_texts(nb):
    """All text in the outputs: streams, tracebacks, and every kind of data but pictures."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            yield output.get("text", "")
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield data if isinstance(data, str) else str(data)


def without_code(markdown):
    """What a reader meets on the way: neither code, nor folded solutions, nor the link."""
    seen = re.sub(r"(?ms)^<details>.*?^</details>", "", without_link(markdown))
    return re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", seen)


# --- the notebook


def test_notebook_is_valid(stored):
    nbformat.validate(stored)
    raw = json.loads(NOTEBOOK.read_text(encoding="utf-8"))  # nbformat mends ids as it reads
    ids = [cell["id"] for cell in raw["cells"]]
    assert len(ids) == len(set(ids))
    assert stored.metadata.kernelspec.name == "python3"


def test_notebook_came_from_run_all_in_a_fresh_kernel(stored):
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert "error" not in kinds
    assert "display_data" in kinds, "no picture is stored"


def test_notebook_keeps_nothing_of_the_machine(stored):
    for text in [*sources(stored, "code"), *sources(stored, "markdown"), *output_texts(stored)]:
        assert not (found := ABSOLUTE_PATHS.search(text)), text[max(0, found.start() - 60) :][:160]
    assert "widgets" not in stored.metadata
    assert all("execution" not in cell.metadata for cell in stored.cells)


def test_notebook_stores_no_warnings(stored):
    junk = [
        output.text
        for cell in code_cells(stored)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert junk == []


def test_notebook_size():
    assert NOTEBOOK.stat().st_size < 6e6


def test_notebook_pictures_are_whole_and_not_blank(stored):
    from PIL import Image

    for n, cell in enumerate(code_cells(stored), 1):
        for output in cell.outputs:
            data = output.get("data", {}).get("image/png")
            if data:
                picture = Image.open(io.BytesIO(base64.b64decode(data)))
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 1, f"cell {n} is one colour"


def test_notebook_headings(stored):
    levels = [
        len(mark)
        for text in sources(stored, "markdown")
        for mark in re.findall(r"(?m)^(#{1,6})\s", re.sub(r"(?ms)^```.*?^```", "", text))
    ]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), "a level is skipped"
    assert all(headings(stored)[1:]), "a cell stands under no heading"


def test_notebook_cells_are_short(stored):
    lengths = [len(lines_of_code(source)) for source in sources(stored, "code")]
    assert max(lengths) <= 12
    assert 1 <= statistics.median(lengths) <= 3.5


def test_notebook_explains_before_it_does(stored):
    words, waiting = [], 0
    for cell in stored.cells:
        if cell.id.startswith("s27"):  # exercises explain no cell that follows
            continue
        if cell.cell_type == "markdown":
            text = without_code(cell.source)
            waiting += len(re.findall(r"[\w'-]+", text))
        else:
            words.append(waiting)
            waiting = 0
    assert 25 <= statistics.mean(words) <= 90
    assert sum(n == 0 for n in words) <= len(words) / 4, "too many cells come without a word"


def test_every_picture_in_markdown_has_alt_text(stored):
    texts = sources(stored, "markdown")
    texts += [p.read_text(encoding="utf-8") for p in project_files() if p.suffix == ".md"]
    for text in texts:
        assert "![](" not in text
        for tag in re.findall(r"<img\b[^>]*>", text):
            assert re.search(r"""\balt=["'][^"']""", tag), tag


# --- style


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- the pins


def pins():
    """Name and version of each line in requirements.txt."""
    text = (ROOT / "requirements.txt").read_text()
    return dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", text))


def test_every_requirement_is_pinned_and_hashed():
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text and not re.search(r"(?m)^\s*-[-\w]*(index|find|trusted|extra)", text)
    entries = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", "").splitlines()
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_requirements_txt_covers_requirements_in():
    locked = pins()
    for line in (ROOT / "requirements.in").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        wanted, reason = line.split("#", 1)
        assert reason.strip(), f"{wanted} has no reason beside it"
        name, _, version = wanted.strip().partition("==")
        found = locked[re.sub(r"[._-]+", "-", name.lower())]
        assert re.fullmatch(version.replace(".", r"\.").replace("*", ".*") or ".*", found), name


def test_the_pairs_that_must_match():
    locked = pins()
    assert (locked["torch"], locked["torchvision"]) == ("2.15.0", "0.29.2")
    assert locked["fastai"] == "2.8.12"
    assert locked["jupyterlab"].startswith("4.6.") and locked["ipywidgets"].startswith("8.")


def test_conda_uses_the_same_pins():
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert env["channels"] == ["conda-forge", "nodefaults"]
    assert env["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    assert set(env) == {"name", "channels", "dependencies"}  # conda passes over others in silence
    python, pip = (MatchSpec(line) for line in env["dependencies"][:-1])
    assert (python.name.normalized, python.version) == ("python", "3.12.*")
    assert (pip.name.normalized, pip.version) == ("pip", None)


# --- the repo


def text_files():
    return [
        p
        for p in project_files()
        if p.suffix in TEXT_ENDINGS | {".ipynb"} or p.name in TEXT_NAMES or p.suffix == ""
    ]


def test_no_file_names_an_index_host_or_a_machine_path():
    assert len(text_files()) > 10
    for path in text_files():
        text = path.read_text(encoding="utf-8")
        for pattern in (INDEX_HOSTS, MACHINE_PATHS):
            found = pattern.search(text)
            assert not found, f"{path.relative_to(ROOT)} has {found[0]!r}"


def test_no_file_is_left_over():
    for path in project_files():
        name = path.relative_to(ROOT)
        assert not re.search(r"\.(orig|rej|bak|swp|part|pyc|log)$|~$", path.name), name
        assert path.stat().st_size < 50e6, f"{name} is too large for a clone"


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_what_the_readme_names_exists(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s#]+)", text) + re.findall(
        r"""(?:src|href)=["']([^"'#]+)""", text
    )
    links = [link for link in links if not re.match(r"[a-z]+:", link)]
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", text)
    named = [n for n in named if "/" in n or Path(n).suffix in TEXT_ENDINGS | {".ipynb"}]
    named = [n for n in named if not n.startswith(("out/", ".venv"))]
    missing = [n for n in links + named if not (ROOT / n).exists()]
    assert missing == []


def test_the_readme_shows_the_commands_that_exist():
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    assert {"lab", "run", "test", "bench", "clean", "help"} <= targets
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        used = set(re.findall(r"(?m)(?:`|^)(?:[A-Z]+=\S+ )*make ([a-z]+)", text))
        assert {"lab", "run"} <= used <= targets


# --- the promises of tests/README.md


def test_every_promise_is_tried_by_a_test():
    cases = [case for case, _ in promises()]
    assert len(cases) == len(set(cases)) >= 60
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")
    )
    assert [case for case in cases if f'"{case}"' not in code] == []
