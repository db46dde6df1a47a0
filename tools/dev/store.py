"""Put the outputs of a run into the notebook itself: what `make store` adds to `make run`."""

import base64
import copy
import io
import os
import sys

import nbformat
from PIL import Image

from tools.helpers import ROOT, write
from tools.run_notebook import as_text

# Cells whose pictures the READMEs show.
SHOWN = {"compare": "verdict.png", "grey": "rivals.png", "visitors": "strangers.png"}
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
LANGUAGE["pygments_lexer"] = "ipython3"


def lighter(png):
    """The same picture in 256 colours, a third of its size (history keeps every one), as base64."""
    buffer, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def joined(outputs):
    """The outputs, with what was printed in pieces, as chance will have it, in one piece."""
    whole = []
    for output in outputs:
        if whole and "name" in output and output["name"] == whole[-1].get("name"):
            whole[-1]["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def cleaned(value, places):
    """A piece of an output, or all of it, whose texts lose the paths that `places` names."""
    if isinstance(value, str):
        for place, short in places:
            value = value.replace(place, short)
    elif isinstance(value, list):
        value = [cleaned(one, places) for one in value]
    elif isinstance(value, dict):
        value = {name: cleaned(one, places) for name, one in value.items()}
    return value


def normalised(nb):
    """A copy without what differs from machine to machine: times, paths, widgets' state, versions.

    What the cells printed stays, except that paths inside the repo lose what is before it; pictures
    are kept in 256 colours.
    """
    places = [(f"{sys.prefix}{os.sep}", f".venv{os.sep}"), (f"{ROOT}{os.sep}", "")]
    places.sort(key=lambda pair: -len(pair[0]))  # .venv lies inside the repo
    nb = copy.deepcopy(nb)
    nb.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    for cell in nb.cells:
        for key in ("execution", "collapsed", "scrolled", "ExecuteTime", "trusted"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = cleaned(joined(cell.outputs), places)
            for data in [output["data"] for output in cell.outputs if "data" in output]:
                data.pop(WIDGET, None)
                if "image/png" in data:
                    data["image/png"] = lighter(data["image/png"])
    return nbformat.from_dict(nb)


def store(nb, notebook):
    """Write a notebook that was run over the file that it came from, and the READMEs' pictures."""
    nb = normalised(nb)
    write(notebook, as_text(nb))
    for cell in nb.cells:
        if cell.id in SHOWN:
            png = next(filter(None, (out.get("data", {}).get("image/png") for out in cell.outputs)))
            (ROOT / "imgs" / SHOWN[cell.id]).write_bytes(base64.b64decode(png))
    print(f"The outputs are stored in {notebook}")
