"""Folders of pictures: one reading of them (`layout`), and all that is said and done with it."""

from .check import check_folder, check_images
from .split import split_images

__all__ = ["check_folder", "check_images", "split_images"]
