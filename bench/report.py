"""What all reports of bench share: the hardware's line, tables, and sections of their own."""

import platform
import re
from datetime import date
from pathlib import Path

import fastai
import torch

from tutorial import describe_device

# What computes, and in which precision: figures of one kind say nothing of another.
KINDS = [f"{what}, {how}" for what in ("GPU", "CPU") for how in ("bfloat16", "float16", "float32")]
NUMBERS = ("cpu family", "model")  # as /proc/cpuinfo calls what tells processors apart
ROOT = Path(__file__).resolve().parent.parent


def processor():
    """Return the processor's name as the system gives it, on Linux with its family and model.

    A rented machine often gives a name that says little: "AMD EPYC" may be twice as fast as "AMD
    EPYC". The numbers tell such processors apart.
    """
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        says = {name.strip(): value.strip() for name, value in pairs}
        if "model name" in says:
            numbers = [f"{what.split()[-1]} {says[what]}" for what in NUMBERS if what in says]
            return f"{says['model name']} ({', '.join(numbers)})" if numbers else says["model name"]
    return platform.processor() or platform.machine()


def hardware():
    """Return a line that says what was measured on, and with which versions."""
    device, precision = describe_device()
    return (
        f"Hardware: {processor()}; {device}; precision {precision}."
        f" Python {platform.python_version()}, fastai {fastai.__version__},"
        f" PyTorch {torch.__version__.split('+')[0]}. Body: bundled."
    )


def kind():
    """Return what sort of hardware this is, one of `KINDS`."""
    device, precision = describe_device()
    return f"{'CPU' if device.startswith('CPU') else 'GPU'}, {precision.split()[0]}"


def table(head, rows):
    """Return a Markdown table, line by line."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def with_section(text, start, titles, title, lines, command):
    """Return a report with one section put in, or in place of the one it had.

    Parameters
    ----------
    text : str
        The report as it was, or "".
    start : str
        What stands above the sections.
    titles : sequence of str
        Of all sections, in their order.
    title : str
        Of the section to put in.
    lines : list of str
        That section.
    command : str
        What it was measured by.
    """
    sections = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", text))
    said = f"`{command}`, {date.today()}. {hardware()}"
    sections[title] = "\n".join([said, "", *lines])
    parts = [f"## {one}\n\n{sections[one].strip()}" for one in titles if one in sections]
    return "\n\n".join([start, *parts]) + "\n"
