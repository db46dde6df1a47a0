"""JupyterLab as a person meets it: the server of `make lab`, and its page in a real Chromium.

Nothing is chosen by the words on the page, so all of it works in any language. Whether a run went
well is read from the saved file, since an error and a mere warning look alike in the page.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from functools import partial

import nbformat

RUN, KERNEL = 3, 4  # places in the menu bar: File, Edit, View, Run, Kernel
CHROMIUM_ARGS = [
    "--no-sandbox",  # Chromium refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
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
    """A JupyterLab started as `make lab` does, as if it were the first time on this computer.

    Attributes
    ----------
    root : Path
        Where the notebooks lie.
    """

    def __init__(self, root, port, settings):
        self.root, self.port, self._settings = root, port, settings

    def get(self, path):
        """What the server answers at this address."""
        with urllib.request.urlopen(f"http://localhost:{self.port}{path}", timeout=10) as reply:
            return json.load(reply)

    def kernel(self, notebook):
        """(number of pages connected, state) of a notebook's kernel, in the server's words."""
        for session in self.get("/api/sessions"):
            if session["path"] == notebook:
                return session["kernel"]["connections"], session["kernel"]["execution_state"]
        return 0, "none"

    def set(self, plugin, **values):
        """Choose settings, as in Settings > Settings Editor; a page heeds them when it is opened.

        Parameters
        ----------
        plugin : str
            Such as ``"@jupyterlab/apputils-extension/themes"``.
        """
        file = self._settings / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")


@contextmanager
def serving(root, folder, python=sys.executable, **variables):
    """Start ``tools/lab.py`` of a copy of the repo, and close it with Ctrl-C in the end.

    Parameters
    ----------
    root : Path
        The copy.
    folder : Path
        For all that JupyterLab keeps about its user.
    python : path
        The Python to start it with.
    **variables : str
        For the environment.

    Yields
    ------
    Server
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    places = {name: folder / name for name in ("config", "data", "settings", "workspaces")}
    env = dict(
        os.environ,
        PORT=str(port),
        JUPYTER_CONFIG_DIR=str(places["config"]),
        JUPYTER_DATA_DIR=str(places["data"]),
        JUPYTERLAB_SETTINGS_DIR=str(places["settings"]),
        JUPYTERLAB_WORKSPACES_DIR=str(places["workspaces"]),
        **variables,
    )
    process = subprocess.Popen(
        [python, "tools/lab.py", "--no-browser"],
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert any(str(port) in line for line in process.stdout), "JupyterLab did not start"
        yield Server(root, port, places["settings"])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def chromium_at(path):
    """Make Chromium ready: yields what starts one that was never used before, given a folder."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        yield partial(
            p.chromium.launch_persistent_context,
            executable_path=path,
            headless=True,
            viewport={"width": 1280, "height": 900},
            args=CHROMIUM_ARGS,
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
    """

    def __init__(self, page, server, notebook):
        self.page, self.server, self.notebook = page, server, notebook
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(60_000)
        nb = self.saved()
        self.place = {cell.id: i for i, cell in enumerate(nb.cells)}
        self.is_code = [cell.cell_type == "code" for cell in nb.cells]

    # --- what is there

    def saved(self):
        """The notebook as it lies in the folder."""
        return nbformat.read(self.server.root / self.notebook, as_version=4)

    def cell(self, which):
        """The cell with this id, or at this place."""
        place = self.place.get(which, which)
        return self.page.locator(f'{NOTEBOOK} .jp-Cell[data-windowed-list-index="{place}"]')

    def prompts(self):
        """What stands before the code cells: "[ ]:", "[*]:" or "[7]:"."""
        return self.page.locator(f"{NOTEBOOK} .jp-CodeCell .jp-InputPrompt").all_inner_texts()

    def prompt(self, which):
        """What stands before this code cell."""
        return self.cell(which).locator(".jp-InputPrompt").inner_text()

    def view(self, place=0):
        """Where the panel, its active cell, and the parts of the cell at `place` are."""
        return self.page.evaluate(VIEW, [NOTEBOOK, place])

    def wait(self, condition, seconds, what):
        """Wait until `condition()` holds; raises AssertionError if it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            self.page.wait_for_timeout(200)

    # --- what a person does

    def open(self):
        """Open /lab and double-click the notebook in the list of files."""
        self.page.goto(f"http://localhost:{self.server.port}/lab", wait_until="domcontentloaded")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        file = self.server.root / self.notebook
        names = self.page.locator("#filebrowser .jp-DirListing-itemText")
        names.get_by_text(file.name, exact=True).dblclick()
        self._opened()

    def reload(self):
        """Load the page anew, with the notebook as it was saved, and its kernel as it is.

        Panels take the widths that they have at a first visit to a window of this size.
        """
        name = urllib.parse.quote(self.notebook)
        address = f"http://localhost:{self.server.port}/lab/tree/{name}?reset"
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        self._opened()

    def _opened(self):
        self.page.wait_for_selector(f"{NOTEBOOK} .jp-CodeCell")
        # Not the circle in the toolbar: it is "idle" even before there is a kernel.
        self.wait(lambda: self.server.kernel(self.notebook)[0] == 1, 120, "the kernel")
        self.wait(self.idle, 120, "the kernel")
        count = len(self.is_code)
        cells = self.page.locator(f"{NOTEBOOK} .jp-Cell")
        self.wait(lambda: cells.count() >= count, 60, "the cells that are out of sight")
        self.page.wait_for_timeout(500)

    def menu(self, place, command):
        """Choose a command from a menu of the menu bar."""
        self.page.locator("#jp-MainMenu .lm-MenuBar-item").nth(place).click()
        self.page.locator(f'.lm-Menu li[data-command="{command}"]').click()

    def click(self, which):
        """Click beside a cell, to select it without writing in it."""
        cell = self.cell(which)
        cell.scroll_into_view_if_needed()
        cell.locator(".jp-InputPrompt").click()

    def confirm(self):
        """Agree to what a dialog asks."""
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")

    def step(self, place, seconds):
        """Press Shift+Enter in the cell at `place`, and wait until it is done."""
        if self.is_code[place]:  # its number from the last run may be the same as the next one
            prompt = self.cell(place).locator(".jp-InputPrompt")
            prompt.evaluate("prompt => prompt.textContent = 'before'")
        self.page.keyboard.press("Shift+Enter")
        if self.is_code[place]:
            self.wait(lambda: NUMBER.search(self.prompt(place)), seconds, f"cell {place}")
        self.wait(self.idle, seconds, "the kernel")

    def idle(self):
        """Whether the kernel has nothing to do."""
        return self.server.kernel(self.notebook)[1] == "idle"

    def wait_for_start(self, which=None):
        """Wait until this cell, or any, waits or runs; what it said before is gone then."""

        def begun():
            prompts = self.prompts() if which is None else [self.prompt(which)]
            return any("*" in text for text in prompts)

        self.wait(begun, 60, "the run to begin")

    def wait_for_end(self, seconds):
        """Wait until no cell waits or runs."""
        self.wait(lambda: not any("*" in t for t in self.prompts()), seconds, "the run to end")
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
        cells = self.page.locator(f"{NOTEBOOK} .jp-Cell")
        found = []
        for i in range(cells.count()):  # cells out of sight are not in the page
            cells.nth(i).scroll_into_view_if_needed()
            shown = cells.nth(i).locator(".jp-OutputArea-output img:not(.jupyter-widgets img)")
            found.append(
                shown.evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight])")
            )
        return found
