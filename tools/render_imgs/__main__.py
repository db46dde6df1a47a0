"""``python -m tools.render_imgs``: render all pictures, or some again by name."""

import argparse
import time
from pathlib import Path

from .names import all_names, recipe_of


def main(argv=None):
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(prog="python -m tools.render_imgs", description=__doc__)
    parser.add_argument("names", nargs="*", help="as train/doraemon/doraemon.17.jpg")
    parser.add_argument("--all", action="store_true", help="all pictures that are not there yet")
    parser.add_argument("--out", default="imgs", help="folder of the pictures (default imgs)")
    parser.add_argument("--samples", type=int, default=12, help="paths a pixel (default 12)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the size, for previews")
    args = parser.parse_args(argv)
    known = all_names()
    unknown = [n for n in args.names if n not in known]
    if unknown or not (args.names or args.all):
        parser.error(
            f"no such picture: {unknown[0]}" if unknown else "name some pictures, or say --all"
        )
    todo = args.names or [n for n in known if not Path(args.out, n).exists()]
    try:
        from .render import render, save
    except ImportError as error:
        parser.error(
            f"{error}. Install what tools/render_imgs/requirements.txt names, "
            "in an environment of its own with Python 3.11."
        )
    start = time.time()
    for i, name in enumerate(todo, 1):
        save(render(name, args.samples, args.scale), Path(args.out, name))
        spent = time.time() - start
        left = spent / i * (len(todo) - i)
        print(
            f"{i}/{len(todo)} {name} ({recipe_of(name)}) {spent / i:.1f} s each, "
            f"{left / 60:.1f} min left",
            flush=True,
        )


if __name__ == "__main__":
    main()
