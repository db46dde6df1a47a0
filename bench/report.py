"""What all reports of bench share: the hardware's line, spreads, and sections of their own."""

import platform
import re
import statistics
from datetime import date
from pathlib import Path

import fastai
import torch

from tutorial import describe_device
from tutorial.files import write_whole
from tutorial.report import table

__all__ = ["KINDS", "ROOT", "hardware", "kind", "mean_sd", "put_section", "spread", "table"]

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


def spread(values, form="{:.0f}"):
    """Say median, least and most: "12 (10 to 15)"."""
    middle, low, high = map(form.format, (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def mean_sd(values):
    """Say mean and standard deviation of shares: "85.0% ± 7.1%"."""
    deviation = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1%}{deviation}"


def put_section(report, start, titles, title, lines, command):
    """Put a section into a report, or in place of the one it had; the others stay as they are.

    Parameters
    ----------
    report : Path
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
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    sections = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", text))
    said = f"`{command}`, {date.today()}. {hardware()}"
    sections[title] = "\n".join([said, "", *lines])
    parts = [f"## {one}\n\n{sections[one].strip()}" for one in titles if one in sections]
    write_whole(report, "\n\n".join([start, *parts]) + "\n")
