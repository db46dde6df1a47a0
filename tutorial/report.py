"""What came out of a training that no notebook shows: the same figures, in files."""

import torch
from fastai.data.transforms import get_image_files

from .draw import overfits
from .files import write_whole, written_whole
from .paragraph import methods
from .record import run_record, write_record
from .share import save_weights
from .verdict import short_name, verdict, what_it_proves

__all__ = ["epoch_line", "table", "write_report"]

COLUMNS = ("training loss", "validation loss", "accuracy", "seconds")


def epoch_line(line):
    """Put one epoch into words; see `COLUMNS` for what `line` holds."""
    loss, valid_loss, right, seconds = line
    return (
        f"training loss {loss:.3f}, validation loss {valid_loss:.3f}, accuracy {right:.1%},"
        f" {seconds:.0f} s"
    )


def write_report(learn, path, out, seed, stages, processes):
    """Ask about the test pictures, and write network, figures and methods into a folder.

    Parameters
    ----------
    learn : Learner
        After training.
    path, out : Path
        The folder of pictures; and where to write report.md, run.json, learner.pkl and
        weights.safetensors.
    seed, processes : int
    stages : list of tuple
        Of each training in turn: the `Stage`, its epochs as lists of `COLUMNS`, and the checkpoint
        after its last one.

    Returns
    -------
    str
        The content of report.md.
    """
    total, figures = len(learn.dls.valid_ds), {}
    files = get_image_files(path / "test").sorted()
    for stage, lines, file in stages:
        figures[f"validation, after {stage.layers}"] = round(lines[-1][2] * total), total
        figures[f"test, after {stage.layers}"] = judge(learn, file, files)
        epochs = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        figures[f"epochs of {stage.layers}"] = epochs
    record = run_record(learn.dls, path, learn, seed, figures=figures, processes=processes)
    text = "\n\n".join([*sections(figures, stages), f"## Methods\n\n{methods(record)}\n"])
    save_weights(learn, out / "weights.safetensors")
    with written_whole(out / "learner.pkl") as part:
        learn.export(part.absolute())
    write_whole(out / "report.md", text)
    write_record(record, out / "run.json")
    return text


def judge(learn, file, files):
    """Return the verdicts on test files by the network in a checkpoint, which stays in `learn`."""
    learn.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"])
    probs = torch.empty(0, learn.dls.c)
    if files:
        with learn.no_bar():
            probs, _ = learn.get_preds(dl=learn.dls.test_dl(files))
    return verdict(files, probs, learn.dls.vocab)


def sections(figures, stages):
    """Return the parts of the report before the methods."""
    names, lines = [stage.layers for stage, *_ in stages], stages[-1][1]
    counts = [
        f"After {name}: {what_it_proves(*figures[f'validation, after {name}'])}" for name in names
    ]
    trained = overfits([line[0] for line in lines], [line[1] for line in lines])
    epochs = [
        [stage.layers, n, f"{loss:.4f}", f"{valid_loss:.4f}", f"{right:.1%}", f"{seconds:.0f}"]
        for stage, lines, _ in stages
        for n, (loss, valid_loss, right, seconds) in enumerate(lines)
    ]
    tables = [figures[f"test, after {name}"] for name in names]
    guesses = [
        [short_name(file), tables[0].truth[file] or "unknown"]
        + [f"{t.guess[file]}, {t.probability[file]:.1%}: {t.verdict[file]}" for t in tables]
        for file in tables[0].index
    ]
    return [
        "# Report",
        *counts,
        trained,
        "## Test pictures",
        table(["file", "truth", *(f"after {name}" for name in names)], guesses) or "None.",
        "## Epochs",
        "They count from 0, as in the notebook.",
        table(["what learns", "epoch", *COLUMNS], epochs),
    ]


def table(head, rows):
    """Return a Markdown table, or "" if there are no rows."""
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
