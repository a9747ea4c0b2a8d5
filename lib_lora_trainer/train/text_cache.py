"""What the text encoders make of captions, kept while neither they nor the captions change."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.hosts.api import Conditioning, Lease, TextRequest
from lib_lora_trainer.train.stores import DiskStore, MemoryStore, Store, Tensors, key_of

logger = logging.getLogger(__name__)
VERSION = 1  # raised whenever the hosts encode the same request differently


class TextCache:
    """Encodes each caption once, alone, and puts batches together from the results.

    They are found by the text encoders' weights and everything in the request: the caption, clip skip, chunks, emphasis
    and for SDXL the size. A batch is bit for bit what its captions give one by one; encoding them together may differ
    in the last bits. For encoders that are not trained: nothing here is differentiable.
    """

    def __init__(self, mode: str, folder: Path, lease: Lease) -> None:
        """mode: memory or disk; folder: for what is kept on disk."""
        self._store: Store = DiskStore(folder) if mode == "disk" else MemoryStore()
        self._encoders = lease.identity("text")

    def fill(self, requests: Sequence[TextRequest], lease: Lease) -> Iterator[Phase]:
        """Encode every caption of the requests that is not kept yet."""
        singles = {self._key(single, lease): single for request in requests for single in _apart(request)}
        missing = [single for key, single in singles.items() if self._store.condition(key) != "kept"]
        for done, single in enumerate(missing):
            yield Phase("caching captions", done, len(missing))
            self._tensors(single, lease)
        yield Phase("caching captions", len(missing), len(missing))

    def encode(self, request: TextRequest, lease: Lease) -> Conditioning:
        """Return the conditioning of a request, on the lease's device; encodes what is not kept yet."""
        parts = [self._tensors(single, lease) for single in _apart(request)]
        context = torch.cat([part["context"] for part in parts]).to(lease.device)
        if "vector" not in parts[0]:
            return Conditioning(context)
        return Conditioning(context, torch.cat([part["vector"] for part in parts]).to(lease.device))

    def _tensors(self, single: TextRequest, lease: Lease) -> Tensors:
        key = self._key(single, lease)
        kept = self._store.read(key)
        if kept is not None:
            return kept
        if self._store.condition(key) != "missing":
            logger.warning("%s: is damaged and is made anew.", self._store.describe(key))
        with torch.no_grad():
            encoded = lease.encode_text(single)
        tensors = {"context": encoded.context.cpu()}
        if encoded.vector is not None:
            tensors["vector"] = encoded.vector.cpu()
        self._store.write(key, tensors)
        return tensors

    def _key(self, single: TextRequest, lease: Lease) -> str:
        # The sizes are part of SDXL's vector; other families do not read them.
        read = single if lease.info.family == "sdxl" else replace(single, sizes=())
        return key_of({"encoders": self._encoders, "request": asdict(read), "version": VERSION})


def _apart(request: TextRequest) -> list[TextRequest]:
    """Return a request for each caption alone."""
    return [
        replace(request, captions=(caption,), sizes=request.sizes[index : index + 1])
        for index, caption in enumerate(request.captions)
    ]
