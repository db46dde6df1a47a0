"""JupyterLab as a person meets it: the server of `make lab`, and its page in a real Chromium.

Nothing is chosen by the words on the page, so all of it works in any language. Whether a run went
well is read from the saved file, since an error and a mere warning look alike in the page.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from functools import partial

import nbformat

from tools.helpers import free_port

RUN, KERNEL = 3, 4  # places in the menu bar: File, Edit, View, Run, Kernel
NUMBER = re.compile(r"\[\d+\]")
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"
# What a person sees of the notebook: the scrolled panel, its active cell, and a given cell's parts.
VIEW = """([notebook, index]) => {
    const box = e => e && (({top, bottom, left, right}) => ({top, bottom, left, right}))(
        e.getBoundingClientRect());
    const of = i => document.querySelector(`${notebook} .jp-Cell[data-windowed-list-index="${i}"]`);
    const active = document.querySelector(`${notebook} .jp-Cell.jp-mod-active`);
    return {
        active: Number(active.dataset.windowedListIndex),
        activeBox: box(active),
        panel: box(document.querySelector(`${notebook} .jp-WindowedPanel-outer`)),
        input: box(of(index)?.querySelector('.jp-Cell-inputWrapper')),
        output: box(of(index)?.querySelector('.jp-Cell-outputWrapper')),
    };
}"""


class Server:
    """A JupyterLab on the notebooks in `root`, started as `make lab` does, for the first time."""

    def __init__(self, root, port, settings):
        self.root, self.port, self._settings = root, port, settings

    def kernel(self, notebook):
        """(number of pages connected, state) of a notebook's kernel, in the server's words."""
        address = f"http://localhost:{self.port}/api/sessions"
        with urllib.request.urlopen(address, timeout=10) as reply:
            kernels = {one["path"]: one["kernel"] for one in json.load(reply)}
        kernel = kernels.get(notebook, {"connections": 0, "execution_state": "none"})
        return kernel["connections"], kernel["execution_state"]

    def set(self, plugin, **values):
        """Choose settings, as in the Settings Editor; a page heeds them when it is opened."""
        file = self._settings / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")


@contextmanager
def serving(root, folder, python=sys.executable, **variables):
    """Start ``tools/lab.py`` of a copy of the repo, and close it with Ctrl-C in the end.

    What JupyterLab keeps about its user goes to `folder`; `variables` are for the environment.

    Yields
    ------
    Server
    """
    port, settings = free_port(), folder / "settings"
    env = dict(
        os.environ,
        PORT=str(port),
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTERLAB_SETTINGS_DIR=str(settings),
        JUPYTERLAB_WORKSPACES_DIR=str(folder / "workspaces"),
        **variables,
    )
    command = [python, "tools/lab.py", "--no-browser"]
    process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert any(str(port) in line for line in process.stdout), "JupyterLab did not start"
        yield Server(root, port, settings)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            process.kill()


@contextmanager
def chromium_at(path):
    """Make Chromium ready: yields what starts one that was never used before, given a folder."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        yield partial(
            p.chromium.launch_persistent_context,
            executable_path=path,
            viewport={"width": 1280, "height": 900},
        )


@contextmanager
def browsing(chromium, server, folder, notebook):
    """Open a notebook in a new Chromium, which keeps what it must in `folder`.

    Yields
    ------
    LabPage
    """
    context = chromium(folder)
    try:
        page = LabPage(context.pages[0], server, notebook)
        page.open()
        yield page
    finally:
        context.close()


class LabPage:
    """A notebook open in JupyterLab, and what a person does with it.

    Attributes
    ----------
    page : playwright.sync_api.Page
    errors : list of str
        What the page's own scripts raised.
    place : dict of str to int
        Where the cell with this id stands.
    is_code : list of bool
    """

    def __init__(self, page, server, notebook):
        self.page, self.server, self.notebook = page, server, notebook
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(60_000)
        cells = self.saved().cells
        self.place = {cell.id: i for i, cell in enumerate(cells)}
        self.is_code = [cell.cell_type == "code" for cell in cells]

    # --- what is there

    def saved(self):
        """The notebook as it lies in the folder."""
        return nbformat.read(self.server.root / self.notebook, as_version=4)

    def cell(self, which):
        """The cell with this id, or at this place."""
        place = self.place.get(which, which)
        return self.page.locator(f'{NOTEBOOK} .jp-Cell[data-windowed-list-index="{place}"]')

    def cells(self):
        """All that the page holds by now: those out of sight come later."""
        return self.page.locator(f"{NOTEBOOK} .jp-Cell")

    def running(self, which=None):
        """Whether this code cell, or any, waits or runs: "[*]:" stands before it."""
        cells = self.cells() if which is None else self.cell(which)
        return any("*" in text for text in cells.locator(".jp-InputPrompt").all_inner_texts())

    def view(self, place=0):
        """Where the panel, its active cell, and the parts of the cell at `place` are."""
        return self.page.evaluate(VIEW, [NOTEBOOK, place])

    def idle(self):
        """Whether the kernel has nothing to do."""
        return self.server.kernel(self.notebook)[1] == "idle"

    def wait(self, condition, seconds, what):
        """Wait until `condition()` holds; raises AssertionError if it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            self.page.wait_for_timeout(200)

    # --- what a person does

    def open(self):
        """Open /lab and double-click the notebook in the list of files."""
        self._go("/lab")
        names = self.page.locator("#filebrowser .jp-DirListing-itemText")
        names.get_by_text(self.notebook, exact=True).dblclick()
        self._opened()

    def reload(self):
        """Load the page anew, with the notebook as it was saved, and its kernel as it is.

        Panels take the widths that they have at a first visit to a window of this size.
        """
        self._go(f"/lab/tree/{urllib.parse.quote(self.notebook)}?reset")
        self._opened()

    def _go(self, address):
        whole = f"http://localhost:{self.server.port}{address}"
        self.page.goto(whole, wait_until="domcontentloaded")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def _opened(self):
        self.page.wait_for_selector(f"{NOTEBOOK} .jp-CodeCell")
        # Not the circle in the toolbar: it is "idle" even before there is a kernel.
        self.wait(lambda: self.server.kernel(self.notebook) == (1, "idle"), 120, "the kernel")
        self.wait(lambda: self.cells().count() >= len(self.is_code), 60, "the cells out of sight")
        self.page.wait_for_timeout(500)

    def menu(self, place, command):
        """Choose a command from a menu of the menu bar."""
        self.page.locator("#jp-MainMenu .lm-MenuBar-item").nth(place).click()
        self.page.locator(f'.lm-Menu li[data-command="{command}"]').click()

    def click(self, which):
        """Click beside a cell, to select it without writing in it."""
        self.cell(which).scroll_into_view_if_needed()
        self.cell(which).locator(".jp-InputPrompt").click()

    def confirm(self):
        """Agree to what a dialog asks."""
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")

    def step(self, place, seconds):
        """Press Shift+Enter in the cell at `place`, and wait until it is done."""
        prompt = self.cell(place).locator(".jp-InputPrompt")
        if self.is_code[place]:  # its number from the last run may be the same as the next one
            prompt.evaluate("prompt => prompt.textContent = 'before'")
        self.page.keyboard.press("Shift+Enter")
        if self.is_code[place]:
            self.wait(lambda: NUMBER.search(prompt.inner_text()), seconds, f"cell {place}")
        self.wait(self.idle, seconds, "the kernel")

    def wait_for_start(self, which=None):
        """Wait until this cell, or any, waits or runs; what it said before is gone then."""
        self.wait(lambda: self.running(which), 60, "the run to begin")

    def wait_for_end(self, seconds):
        """Wait until no cell waits or runs."""
        self.wait(lambda: not self.running(), seconds, "the run to end")
        self.wait(self.idle, 60, "the kernel")

    def save(self):
        """Press Ctrl+S, and return what is saved."""
        with self.page.expect_response(
            lambda r: r.request.method == "PUT" and "/api/contents/" in r.url
        ) as answer:
            self.page.keyboard.press("Control+s")
        assert answer.value.ok
        return self.saved()

    def pictures(self):
        """For each cell, the (width, height) of every picture below it that the file holds, too."""
        found = []
        for i in range(self.cells().count()):  # cells out of sight are not in the page
            self.cells().nth(i).scroll_into_view_if_needed()
            shown = (
                self.cells().nth(i).locator(".jp-OutputArea-output img:not(.jupyter-widgets img)")
            )
            sizes = "all => all.map(i => [i.naturalWidth, i.naturalHeight])"
            found.append(shown.evaluate_all(sizes))
        return found
