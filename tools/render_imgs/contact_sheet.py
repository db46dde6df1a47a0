"""``python -m tools.render_imgs.contact_sheet``: one page of train, a row for each recipe."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from .names import CLASSES, RECIPES, all_names, parse, recipe_of

CELL, EACH, LEFT = (120, 96), 5, 64


def contact_sheet(root):
    """Page with ``EACH`` train pictures of both classes in every recipe.

    Parameters
    ----------
    root : path-like
        Folder of the pictures.

    Returns
    -------
    page : PIL.Image.Image
    """
    w, h = CELL
    page = Image.new("RGB", (LEFT + 2 * EACH * w, len(RECIPES) * h), "white")
    draw = ImageDraw.Draw(page)
    train = [n for n in all_names() if n.startswith("train/")]
    for row, recipe in enumerate(RECIPES):
        draw.text((4, row * h + h // 2 - 6), recipe, fill="black")
        for side, cls in enumerate(CLASSES):
            names = [n for n in train if recipe_of(n) == recipe and parse(n)[1] == cls][:EACH]
            for k, name in enumerate(names):
                with Image.open(Path(root, name)) as picture:
                    picture.thumbnail((w - 4, h - 4))
                    x = LEFT + (side * EACH + k) * w + (w - picture.width) // 2
                    page.paste(picture, (x, row * h + (h - picture.height) // 2))
    return page


def main(argv=None):
    """Write ``contact-sheet.jpg`` beside the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.render_imgs.contact_sheet")
    parser.add_argument("--imgs", default="imgs", help="folder of the pictures (default imgs)")
    root = Path(parser.parse_args(argv).imgs)
    contact_sheet(root).save(root / "contact-sheet.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
