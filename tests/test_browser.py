"""The learner's own path, in a real Chromium: /lab, demo.ipynb, Run All Cells, wait, save.

The verdict comes from the saved file, since an error and a mere warning look alike in the page.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import NOTEBOOK, ROOT, code_cells, project_files

from tools import browser

RUN_ALL_S = 900
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
CHROMIUM_ARGS = [
    "--no-sandbox",  # Chromium refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def chromium():
    path, reason = browser.install_browser()
    if not path:
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repo's files, since the run saves the notebook; with a space and 中文."""
    root = tmp_path_factory.mktemp("clone") / "a b 中文"
    for path in project_files():
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


@pytest.fixture(scope="module")
def port(clone, tmp_path_factory):
    """The port of a JupyterLab started as `make lab` does, at its first visit ever."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    fresh = tmp_path_factory.mktemp("jupyter")
    env = dict(
        os.environ,
        PORT=str(port),
        JUPYTER_CONFIG_DIR=str(fresh / "config"),
        JUPYTERLAB_SETTINGS_DIR=str(fresh / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(fresh / "workspaces"),
    )
    process = subprocess.Popen(
        [sys.executable, "tools/lab.py", "--no-browser"],
        cwd=clone,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert str(port) in process.stdout.readline(), "JupyterLab did not start"
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def kernel_state(port):
    """(number of pages connected, state) of the one kernel, in the server's words."""
    with urllib.request.urlopen(f"http://localhost:{port}/api/kernels", timeout=10) as reply:
        kernels = json.load(reply)
    return (kernels[0]["connections"], kernels[0]["execution_state"]) if kernels else (0, "none")


def wait_for(page, condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        page.wait_for_timeout(200)


def test_run_all_cells_in_the_browser(chromium, clone, port, tmp_path):
    from playwright.sync_api import sync_playwright

    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    with sync_playwright() as p:
        context = p.chromium.launch_persistent_context(
            tmp_path,
            executable_path=chromium,
            headless=True,
            viewport={"width": 1440, "height": 1000},
            args=CHROMIUM_ARGS,
        )
        page = context.pages[0]
        page.set_default_timeout(60_000)
        page_errors = []
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.goto(f"http://localhost:{port}/lab", wait_until="domcontentloaded")
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        item = page.locator(f'#filebrowser .jp-DirListing-item[title*="Name: {NOTEBOOK.name}"]')
        item.dblclick()
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-CodeCell")
        # Not the circle in the toolbar: it is "idle" even before there is a kernel.
        wait_for(page, lambda: kernel_state(port) == (1, "idle"), 120, "the kernel")
        page.wait_for_timeout(500)
        assert page.locator(".Toastify__toast").count() == 0, "JupyterLab asks about news"

        page.locator("#jp-MainMenu .lm-MenuBar-item").nth(3).click()
        page.locator('.lm-Menu li[data-command="runmenu:run-all"]').click()
        page.wait_for_function(f"() => {PROMPTS}.some(t => /\\[\\*\\]/.test(t))")
        page.wait_for_function(
            f"() => !{PROMPTS}.some(t => t.includes('*'))", timeout=RUN_ALL_S * 1000, polling=250
        )
        wait_for(page, lambda: kernel_state(port)[1] == "idle", 60, "idle")
        page.keyboard.press("Control+s")
        page.wait_for_function(
            "() => !document.querySelector('.lm-DockPanel-tabBar .lm-TabBar-tab"
            ".lm-mod-current.jp-mod-dirty')"
        )
        shown = 0
        cells = page.locator(".jp-Notebook .jp-Cell")
        for i in range(cells.count()):  # cells out of sight are not in the page
            cells.nth(i).scroll_into_view_if_needed()
            pictures = (
                cells.nth(i)
                .locator(".jp-OutputArea-output img")
                .evaluate_all("all => all.map(i => i.naturalWidth * i.naturalHeight)")
            )
            assert all(pictures), f"a picture in cell {i} was not drawn"
            shown += len(pictures)
        cells.first.scroll_into_view_if_needed()
        page.screenshot(path=out / "browser.png")
        context.close()

    code = code_cells(nbformat.read(clone / NOTEBOOK.name, as_version=4))
    outputs = [output for cell in code for output in cell.outputs]
    assert [o.ename for o in outputs if o.output_type == "error"] == []
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    saved = sum("image/png" in output.get("data", {}) for output in outputs)
    assert saved > 0 and shown >= saved
    assert page_errors == []
