"""What the hub says about one of its files before it is downloaded: where it is, how long, and its checksum."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urljoin, urlsplit

from lib_lora_trainer.base.errors import UserError

if TYPE_CHECKING:
    import requests

ENDPOINT = "https://huggingface.co"
PLAIN = {"Accept-Encoding": "identity"}  # lengths and ranges are those of the file, not of something compressed
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
REDIRECTS = 5
_HEX = re.compile(r"[0-9a-f]+")
_POINTER = re.compile(r"oid sha256:([0-9a-f]{64})\s+size (\d+)")


@dataclass(frozen=True)
class Remote:
    """One file of a repository. url: of exactly this version; size: bytes; digest: lower-case hexadecimal digits.

    kind: `sha256` of large files, `git` (the SHA-1 of a git blob) of those in the repository itself.
    """

    name: str
    url: str
    size: int
    digest: str
    kind: Literal["sha256", "git"]

    def digest_of(self, path: Path) -> str:
        """Return the digest of a local file in the same kind."""
        digest = hashlib.sha256()
        if self.kind == "git":
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, as huggingface_hub reads it, or its own."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def ask(http: requests.Session, repository: str, name: str) -> Remote:
    """Return what the hub says about a file in its newest version.

    Raises UserError that says what to do, also when the server names no checksum: then nothing would be checked.
    Raises requests.RequestException when it cannot be reached.
    """
    address = f"{endpoint()}/{repository}/resolve/main/{quote(name)}"
    for _ in range(REDIRECTS):
        answer = http.head(address, headers=PLAIN, timeout=TIMEOUT, allow_redirects=False)
        there = urljoin(address, answer.headers.get("Location", ""))
        linked = "X-Linked-Etag" in answer.headers
        if not answer.is_redirect or linked or urlsplit(there).netloc != urlsplit(address).netloc:
            break
        address = there  # a repository that was renamed
    if answer.status_code >= 400 and answer.status_code not in (405, 501):  # mirrors may know no HEAD
        raise refused(answer.status_code, address)
    headers = answer.headers
    revision = headers.get("X-Repo-Commit", "main")
    url = address.replace("/resolve/main/", f"/resolve/{revision}/")
    digest = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"').lower()
    size = headers.get("X-Linked-Size") or ("" if answer.is_redirect else headers.get("Content-Length", ""))
    if size.isdecimal() and answer.status_code < 400 and _HEX.fullmatch(digest) and len(digest) in (40, 64):
        return Remote(name, url, int(size), digest, "sha256" if len(digest) == 64 else "git")
    return _from_pointer(http, name, url)


def refused(status: int, address: str) -> UserError:
    """Return the error for a status with which the hub refuses a file."""
    advice = {
        401: "The hub wants a login for it. Get the file in a browser.",
        403: "The hub gives it only to those who accepted its terms. Get the file in a browser.",
        404: "The hub has no such file. Check HF_ENDPOINT, or whether the repository was renamed.",
        429: "The hub had too many requests from here. Wait some minutes.",
    }
    text = advice.get(status, "The hub has a problem of its own. Try again later." if status >= 500 else "Try again.")
    return UserError(f"{address}: refused with status {status}. {text}")


def _from_pointer(http: requests.Session, name: str, url: str) -> Remote:
    """Ask for the text that git keeps in place of a large file, where a mirror leaves out the hub's own headers."""
    address = url.replace("/resolve/", "/raw/")
    with http.get(address, headers=PLAIN, timeout=TIMEOUT, stream=True) as answer:
        beginning = next(answer.iter_content(1024), b"") if answer.status_code == 200 else b""
    pointer = _POINTER.search(beginning.decode("utf-8", "replace"))
    if pointer is None:
        raise UserError(
            f"{address}: the server names no checksum for {name}, so nothing can tell whether it arrives whole. "
            f"Choose another HF_ENDPOINT, or unset it for {ENDPOINT}."
        )
    return Remote(name, url, int(pointer[2]), pointer[1], "sha256")
