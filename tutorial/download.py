"""Download one file, whole and right or not at all, without waiting for a network that is dead."""

import hashlib
import threading
import time
from urllib.parse import urlsplit

import requests
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError

from .files import replacing

PATIENCE = 5  # seconds for a server to answer, and for each next piece of the file
LIMIT = 600  # seconds for the whole file


class DownloadError(RuntimeError):
    """The file can't be had; the message says why."""


def download(url, path, digest):
    """Download a file whose SHA-256 is known, with a progress bar; folders are made as needed.

    (``torch.hub.download_url_to_file`` waits for a dead network without end, has no limit on the
    whole download, and calls one that breaks off a wrong checksum.)

    Raises
    ------
    DownloadError
        If the server can't be reached within 5 s, refuses, falls silent for 5 s, breaks off, sends
        something else or needs more than 10 minutes, or if `path` can't be written. Then nothing is
        left there.
    """
    host, end = urlsplit(url).hostname, time.monotonic() + LIMIT
    try:
        with replacing(path) as part:
            with open(part, "wb") as file, _ask(url) as answer:
                size = int(answer.headers.get("Content-Length", 0)) or None
                name = f"{path.name} from {host}"
                with tqdm(total=size, unit="B", unit_scale=True, desc=name) as bar:
                    while piece := answer.raw.read1(1 << 16):  # what has come, be it a single byte
                        bar.update(file.write(piece))
                        if time.monotonic() > end:
                            raise DownloadError(
                                f"{host} is too slow: in {LIMIT / 60:.0f} minutes only"
                                f" {bar.n / 1e6:.0f} MB have come"
                            )
            if sha256(part) != digest:
                raise DownloadError(f"what {host} sent has a wrong checksum")
    except HTTPError as error:
        raise DownloadError(f"the download from {host} broke off") from error
    except OSError as error:
        raise DownloadError(f"{path.parent} can't be written to ({error.strerror})") from error


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ask(url):
    """Return the server's answer, its content still to come, or raise `DownloadError` within 5 s.

    The name look-up and each address of the server have time limits of their own, which add up.
    A thread that is not waited for makes it one limit for all of them.
    """
    host, box = urlsplit(url).hostname, [requests.Timeout()]

    def ask():
        try:
            plain = {"Accept-Encoding": "identity"}  # not squeezed
            box[0] = requests.get(url, stream=True, timeout=PATIENCE, headers=plain)
        except Exception as error:
            box[0] = error

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    (answer,) = box
    if isinstance(answer, requests.Timeout):
        raise DownloadError(f"{host} did not answer within {PATIENCE} s")
    if isinstance(answer, Exception):
        raise DownloadError(f"{host} can't be reached ({type(answer).__name__})") from answer
    if not answer.ok:
        raise DownloadError(f"{host} answered {answer.status_code} {answer.reason}")
    return answer
