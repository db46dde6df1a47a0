"""The learner's own path, in a real Chromium: /lab, the notebook, and every way to run it.

The notebook is run on a small folder, to save time, and what it says is compared with what `make
run` says about that folder on this machine. What it looks like is judged from the stored outputs.
"""

import contextlib
import json
import re
import shutil

import psutil
import pytest
from conftest import NOTEBOOK, ROOT, code_cells, project_files

from tools.dev import browser
from tools.dev.editions import CHINESE
from tools.dev.lab_page import KERNEL, RUN, browsing, chromium_at, serving

RUN_ALL_S = 900
OUT = ROOT / "out" / "browser"
PARTS = ("part-1", "part-2", "part-3", "map-2018")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium():
    path, reason = browser.install_browser()
    if not path:
        pytest.skip(reason)
    with chromium_at(path) as start:
        yield start


@pytest.fixture
def clone(tmp_path):
    """A copy of the repo's files, since a run saves the notebook; with a space and 中文."""
    return copy_project(tmp_path)


def copy_project(folder):
    """Copy the repo's files into a folder with a space and Chinese letters in its name."""
    root = folder / "a b 中文"
    for path in project_files():
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


@pytest.fixture(scope="module")
def small(three_classes):
    """A folder of a few pictures."""
    return three_classes[0]


@pytest.fixture(scope="module")
def by_make_run(three_classes):
    """What the notebook says about the small folder when `make run` runs it."""
    _, out, done = three_classes
    assert done.returncode == 0, done.stderr
    return results(json.loads((out / NOTEBOOK.name).read_text("utf-8"))["cells"])


TIMES = re.compile(r"(?<=takes about ).*|\b\d\d:\d\d\b|\b\d+\.\d s\b")


def results(cells):
    """By cell id, all that the code cells say and draw, as text; but for how long it took.

    Progress bars are left out: an empty one stays behind here and none there.
    """
    found = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            printed, shown = "", []
            for output in cell["outputs"]:
                printed += "".join(output.get("text", ""))
                text = as_text(output.get("data", {}))
                if text and "HTML object" not in text:
                    shown.append(text)
            found[cell["id"]] = TIMES.sub("…", "\n".join([printed, *shown]))
    return found


def as_text(data):
    """What an output says, in words."""
    text = "".join(data.get("text/plain", ""))
    return "".join(data["text/markdown"]) if "Markdown object" in text else text


def assert_all_ran(lab, first, expected):
    """Assert that all cells ran well, in order, drew everything, and found what was expected.

    Parameters
    ----------
    lab : LabPage
    first : int
        The number of the first cell that ran.
    expected : dict
        What `results` gives for another run.
    """
    nb = lab.save()
    code = [cell for cell in code_cells(nb) if cell.source]  # Shift+Enter at the end adds an empty
    assert [out.ename for c in code for out in c.outputs if out.output_type == "error"] == []
    assert [c.execution_count for c in code] == list(range(first, first + len(code)))
    assert_all_drawn(lab, nb)
    found = results(nb.cells)
    assert {id: found[id] for id in expected} == expected
    assert lab.errors == []
    assert lab.page.locator(".Toastify__toast").count() == 0, "JupyterLab has something to say"


def assert_all_drawn(lab, nb):
    """Assert that the page shows the pictures that are saved, cell by cell."""
    for cell, shown in zip(nb.cells, lab.pictures(), strict=True):
        saved = sum("image/png" in out.get("data", {}) for out in cell.get("outputs", []))
        assert len(shown) == saved, cell.id
        assert all(width and height for width, height in shown), f"{cell.id} is not drawn"


# --- run on the small folder


@pytest.fixture(scope="module")
def finished(chromium, small, tmp_path_factory):
    """demo.ipynb on the small folder after Run All Cells, still open."""
    folder = tmp_path_factory.mktemp("finished")
    with (
        serving(
            copy_project(folder), folder / "jupyter", IMGS=str(small), OUT=str(folder)
        ) as server,
        browsing(chromium, server, folder / "chromium", NOTEBOOK.name) as lab,
    ):
        lab.menu(RUN, "runmenu:run-all")
        lab.wait_for_start()
        lab.wait_for_end(RUN_ALL_S)
        yield lab


def test_run_all_cells(finished, by_make_run):
    assert_all_ran(finished, 1, by_make_run)


def test_the_upload_button_answers(finished):
    cell = finished.cell("upload")
    cell.scroll_into_view_if_needed()
    with finished.page.expect_file_chooser() as chooser:
        cell.locator("button.jupyter-widgets").click()
    chooser.value.set_files(ROOT / "imgs" / "test" / "walle.123.jpg")
    answer = cell.locator(".jp-OutputArea-output img")
    answer.wait_for()
    assert answer.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert re.search(r"walle\.123\.jpg: (apple|brick|cone), [0-9.]+%", cell.inner_text())


# --- as it is stored, on the real pictures


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    """demo.ipynb as one finds it, with the stored outputs."""
    folder = tmp_path_factory.mktemp("stored")
    with (
        serving(copy_project(folder), folder / "jupyter") as server,
        browsing(chromium, server, folder / "chromium", NOTEBOOK.name) as lab,
    ):
        yield lab


def test_the_solutions_unfold(opened):
    solutions = opened.page.locator(".jp-Notebook details")
    assert solutions.count() == 8
    for i in range(solutions.count()):
        code = solutions.nth(i).locator("pre").first
        assert not code.is_visible()
        solutions.nth(i).locator("summary").click()
        assert code.is_visible()


# What is wider than its box: what a cell shows, and in a narrow window code and pictures at least.
TOO_WIDE = """what => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].filter(
    cell => [...cell.querySelectorAll(what)].some(
        e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
).map(cell => Number(cell.dataset.windowedListIndex))"""
SHOWN = ".jp-OutputArea-output, .jp-OutputArea-output *, .jp-MarkdownOutput, .jp-MarkdownOutput *"
CODE = ".cm-scroller, .jp-OutputArea-output pre, .jp-RenderedImage"


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_can_be_read(opened, theme, width):
    lab, page = opened, opened.page
    lab.save()
    lab.server.set("@jupyterlab/apputils-extension/themes", theme=f"JupyterLab {theme}")
    page.set_viewport_size({"width": width, "height": 900})
    lab.reload()
    assert page.evaluate("document.body.dataset.jpThemeName") == f"JupyterLab {theme}"
    assert_all_drawn(lab, lab.saved())
    photograph(lab, f"{width}-{theme.lower()}")
    ids = list(lab.place)
    wide = page.evaluate(TOO_WIDE, f"{CODE}, {SHOWN}" if width == 1280 else CODE)
    assert [ids[i] for i in wide] == []
    assert lab.errors == []


def test_the_links_lead_to_the_same_place_in_the_other_edition(opened):
    lab, place = opened, opened.place["s12"]
    for link, name in (("中文", CHINESE), ("English", NOTEBOOK.name)):
        lab.cell(place).get_by_role("link", name=link).click()
        lab.page.locator(f'.lm-TabBar-tab.lm-mod-current[title*="Name: {name}"]').wait_for()
        lab.wait(lambda: in_sight(lab.view(place), "input"), 60, f"step 12 of {name}")
    assert lab.errors == []


def in_sight(view, what):
    """Whether at least a part of what has this name in a view is in the scrolled panel."""
    panel, box = view["panel"], view[what]
    return box and box["top"] < panel["bottom"] and box["bottom"] > panel["top"]


def photograph(lab, name):
    """Keep each part of the page as pictures under out/, for people to look at."""
    OUT.mkdir(parents=True, exist_ok=True)
    height = 5000
    lab.page.set_viewport_size({"width": lab.page.viewport_size["width"], "height": height})
    panel = lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer")
    top = "(panel, top) => panel.scrollTop = top"
    tops = [
        lab.cell(part).evaluate(
            "cell => { const panel = cell.closest('.jp-WindowedPanel-outer');"
            "return cell.getBoundingClientRect().top - panel.getBoundingClientRect().top"
            " + panel.scrollTop }"
        )
        for part in PARTS
    ]
    step = height - 150  # what is above and below the notebook, and some of it twice
    ends = [*tops[1:], panel.evaluate("panel => panel.scrollHeight")]
    tops[0] = 0  # the title as well
    for part, start, end in zip(PARTS, tops, ends, strict=True):
        for i in range(int((end - start) // step) + 1):
            panel.evaluate(top, start + i * step)
            lab.page.wait_for_timeout(300)
            lab.page.screenshot(path=OUT / f"{part}-{name}-{i + 1}.png")


# --- on the small folder again


def test_stepping_through_and_then_run_all(chromium, clone, small, by_make_run, tmp_path):
    with (
        serving(clone, tmp_path / "jupyter", IMGS=str(small), OUT=str(tmp_path)) as server,
        browsing(chromium, server, tmp_path / "chromium", NOTEBOOK.name) as lab,
    ):
        lab.cell(0).click()
        for place, is_code in enumerate(lab.is_code):
            lab.step(place, RUN_ALL_S)
            view = lab.view(place)
            assert view["active"] == place + 1
            if is_code and view["output"]:
                assert view["input"]["bottom"] <= view["output"]["top"]
            # A tall output can push the next cell out of sight, until Shift+Enter is pressed there.
            assert in_sight(view, "output" if is_code and view["output"] else "activeBox")
        assert_all_ran(lab, 1, by_make_run)

        count = sum(lab.is_code)
        lab.menu(RUN, "runmenu:run-all")
        lab.wait_for_start()
        lab.wait_for_end(RUN_ALL_S)
        assert_all_ran(lab, count + 1, by_make_run)


def test_chinese_interrupted_and_run_on_then_restarted(
    chromium, clone, small, by_make_run, tmp_path
):
    with serving(clone, tmp_path / "jupyter", IMGS=str(small), OUT=str(tmp_path)) as server:
        server.set("@jupyterlab/translation-extension/plugin", locale="zh_CN")
        with browsing(chromium, server, tmp_path / "chromium", CHINESE) as lab:
            assert "运行" in lab.page.locator("#jp-MainMenu").inner_text()

            lab.menu(RUN, "runmenu:run-all")
            lab.wait_for_start("fit-all")
            training = lab.cell("fit-all").locator(".jp-OutputArea")
            training.get_by_text("Training takes about").wait_for(timeout=RUN_ALL_S * 1000)
            lab.page.locator('.jp-Toolbar [data-command="notebook:interrupt-kernel"]').click()
            training.get_by_text("KeyboardInterrupt").first.wait_for(timeout=30_000)
            lab.wait_for_end(60)
            code = code_cells(lab.save())
            at = [cell.id for cell in code].index("fit-all")
            assert [cell.execution_count for cell in code[at:]] == [at + 1] + [None] * (
                len(code) - at - 1
            )
            assert code[at].outputs[-1].ename == "KeyboardInterrupt"

            lab.click("fit-all")
            lab.menu(RUN, "notebook:run-all-below")
            lab.wait_for_start()
            lab.wait_for_end(RUN_ALL_S)
            code = code_cells(lab.save())
            assert [c.execution_count for c in code[at:]] == list(range(at + 2, len(code) + 2))
            kinds = {output.output_type for cell in code for output in cell.outputs}
            assert "error" not in kinds

            lab.menu(KERNEL, "runmenu:restart-and-run-all")
            lab.confirm()
            lab.wait_for_start()
            lab.wait_for_end(RUN_ALL_S)
            assert_all_ran(lab, 1, by_make_run)


def test_the_kernel_dies_in_training_and_all_is_run_again(
    chromium, clone, small, by_make_run, tmp_path
):
    """As the system ends it when memory is short: what is on the page is kept."""
    with (
        serving(clone, tmp_path / "jupyter", IMGS=str(small), OUT=str(tmp_path)) as server,
        browsing(chromium, server, tmp_path / "chromium", NOTEBOOK.name) as lab,
    ):
        lab.menu(RUN, "runmenu:run-all")
        training = lab.cell("fit-all").locator(".jp-OutputArea")
        lab.wait_for_start("fit-all")
        training.get_by_text("Training takes about").wait_for(timeout=RUN_ALL_S * 1000)
        kernel_of(tmp_path).kill()
        dialog = lab.page.locator(".jp-Dialog")
        dialog.wait_for()
        assert "appears to have died" in dialog.inner_text()
        lab.confirm()
        lab.wait_for_end(60)
        code = code_cells(lab.save())
        at = [cell.id for cell in code].index("fit-all")
        assert [cell.execution_count for cell in code[:at]] == list(range(1, at + 1))
        ran = results(code[:at])
        assert ran == {id: by_make_run[id] for id in ran}

        lab.menu(RUN, "runmenu:run-all")
        lab.wait_for_start()
        lab.wait_for_end(RUN_ALL_S)
        assert_all_ran(lab, 1, by_make_run)


def kernel_of(folder):
    """The kernel whose results go to a folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words, places = process.cmdline(), process.environ()
            if "ipykernel_launcher" in words and places.get("OUT") == str(folder):
                return process
    raise AssertionError(f"no kernel writes to {folder}")
