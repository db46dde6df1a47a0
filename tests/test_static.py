"""What can be judged without running anything: the stored notebook, the pins, the files' text."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import nbformat
import pytest
import yaml
from conftest import NOTEBOOK, ROOT, code_cells, project_files
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from promises import promises

from tools.setup_env import SUPPORTED

# Written in pieces, so that this file passes its own test.
INDEX_HOSTS = [r"pypi\." + "org", r"python" + r"hosted\.org", r"pytorch\.org" + "/whl"]
INDEX_HOSTS += [r"anaconda\." + "org/", r"repo\.anaconda", r"https?://[^\s)\"']*" + r"/simple\b"]
MACHINE_PATHS = [r"/work/" + r"(main|shared)", "/tmp" + "/w/", "/root" + "/"]
FOREIGN = re.compile("|".join(INDEX_HOSTS + MACHINE_PATHS))
# In the notebook no absolute path has any business at all.
ABSOLUTE_PATHS = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|opt|usr|mnt)/|[A-Z]:\\Users")


def test_the_stored_notebook_is_one_whole_run_in_a_fresh_kernel(stored):
    nbformat.validate(stored)
    raw = json.loads(NOTEBOOK.read_text(encoding="utf-8"))  # nbformat mends ids as it reads
    assert len({cell["id"] for cell in raw["cells"]}) == len(raw["cells"])
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [out.get("name", out.output_type) for cell in cells for out in cell.outputs]
    assert "display_data" in kinds and not {"error", "stderr"} & set(kinds)
    assert NOTEBOOK.stat().st_size < 6e6, "too large for a clone"


def test_the_stored_notebook_keeps_nothing_of_the_machine(stored):
    for cell in stored.cells:
        texts = [cell.source]
        for out in cell.get("outputs", []):
            texts += [out.get("text", "")]
            texts += [
                str(data) for kind, data in out.get("data", {}).items() if "image" not in kind
            ]
        for text in texts:
            found = ABSOLUTE_PATHS.search(text)
            assert not found, text[max(0, found.start() - 60) :][:160]
        assert "execution" not in cell.metadata
    assert stored.metadata.kernelspec.name == "python3" and "widgets" not in stored.metadata


def test_the_notebook_can_be_found_through(stored):
    """One title, no level skipped, as a screen reader goes."""
    texts = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    texts = [re.sub(r"(?ms)^```.*?^```", "", text) for text in texts]
    levels = [len(mark) for text in texts for mark in re.findall(r"(?m)^(#+)\s", text)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_every_picture_has_a_text_for_who_can_not_see_it(stored):
    texts = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    texts += [p.read_text(encoding="utf-8") for p in project_files() if p.suffix == ".md"]
    for text in texts:
        assert "![](" not in text
        for tag in re.findall(r"<img\b[^>]*>", text):
            assert re.search(r"""\balt=["'][^"']""", tag), tag


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what is installed

LISTS = ["requirements", "requirements-dev"]


def pins(name):
    """Package to version in a compiled list, after checking that each has its hashes."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / f"{name}.txt").read_text()).replace("\\\n", "")
    for line in text.splitlines():
        assert re.match(r"[\w.-]+==[^;\s]+( ;[^#]*?)? +--hash=sha256:", line), line
    return dict(re.findall(r"(?m)^([\w.-]+)==([^;\s]+)", text))


@pytest.mark.parametrize("name", LISTS)
def test_a_compiled_list_is_the_one_of_its_source(name):
    locked = pins(name)
    for line in (ROOT / f"{name}.in").read_text().splitlines():
        if line and not line.startswith(("#", "-")):
            wanted = Requirement(line.split("#")[0].strip())
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), line


def test_the_tests_add_to_what_learners_install_and_change_nothing():
    ours, more = (pins(name) for name in LISTS)
    assert all(ours.get(name, version) == version for name, version in more.items())


def test_learners_install_all_that_the_tutorial_imports(stored):
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "tutorial").glob("*.py")]
    sources += [(ROOT / "tools" / f"{tool}.py").read_text() for tool in ("lab", "run_notebook")]
    imported = set()
    for node in ast.walk(ast.parse("\n".join(sources + [c.source for c in code_cells(stored)]))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    found, locked = packages_distributions(), pins("requirements")
    assert {"fastai", "torch", "nbclient"} <= imported
    for name in imported - sys.stdlib_module_names - {"tutorial", "tools"}:
        assert any(canonicalize_name(package) in locked for package in found[name]), name


def test_conda_reads_the_learners_pins():
    python, *_, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert python.removeprefix("python=") in SUPPORTED
    assert pip == {"pip": ["-r requirements.txt"]}


# --- the repo


def test_no_file_names_an_index_host_or_a_path_of_a_machine():
    for path in project_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert not (found := FOREIGN.search(text)), f"{path.relative_to(ROOT)} has {found[0]!r}"


def tried(module):
    """The texts in those functions of a module that use `keeps`, and in the tables beside them.

    They use it themselves, or a function or a fixture that does.
    """
    keepers, body = {"keeps"}, ast.parse(module.read_text(encoding="utf-8")).body
    for _ in range(2):
        users = [node for node in body if keepers & names(node)]
        keepers |= {node.name for node in users if isinstance(node, ast.FunctionDef)}
    nodes = users + [node for node in body if isinstance(node, ast.Assign)]
    return {n.value for node in nodes for n in ast.walk(node) if isinstance(n, ast.Constant)}


def names(node):
    """All names in a piece of code, those of arguments too."""
    return {getattr(n, "id", getattr(n, "arg", None)) for n in ast.walk(node)}


def test_every_promise_is_tried_by_a_test():
    cases = [case for case, _ in promises()]
    assert len(cases) == len(set(cases))
    found = set().union(*map(tried, (ROOT / "tests").glob("test_*.py")))
    assert [case for case in cases if case not in found] == []
