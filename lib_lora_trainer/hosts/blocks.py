"""How whole blocks of a network compute while they are trained: recomputed in the backward pass, compiled, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from lib_lora_trainer.hosts.compiled import Compiler


class BlockForwards:
    """Instance-level `forward`s on blocks, from entering to leaving; what was there is put back as it was.

    recomputed: blocks whose activations are computed again in the backward pass instead of being kept. Not reentrant:
    the reentrant kind finds no gradient where all parameters and inputs of a block are frozen, as around an adapter.
    compiled: blocks that torch.compile makes faster; each is compiled when it is first called, adapters included.
    method: of the class, what is compiled: it takes the arguments of `forward` and computes the same.
    """

    def __init__(
        self, recomputed: Sequence[torch.nn.Module], compiled: Sequence[torch.nn.Module], method: str = "forward"
    ) -> None:
        self._recomputed = set(recomputed)
        self._compiled = set(compiled)
        self._method = method
        self._compiler = Compiler(compiled)
        self._before: dict[torch.nn.Module, Any] = {}
        self._in_force = False

    def __enter__(self) -> BlockForwards:
        if self._compiled:
            self._compiler.__enter__()
        for block in self._recomputed | self._compiled:
            self._before[block] = block.__dict__.get("forward")
            block.__dict__["forward"] = self._forward_of(block, self._before[block])
        self._in_force = True
        return self

    def __exit__(self, *_: object) -> None:
        self._in_force = False
        while self._before:
            block, before = self._before.popitem()
            if before is None:
                # Assigning the bound method instead would pin whatever patch of the class is in force now.
                del block.__dict__["forward"]
            else:
                block.__dict__["forward"] = before
        if self._compiled:
            self._compiler.__exit__()

    def look(self) -> None:
        """Notice what was attached to the compiled blocks, or taken off, since the last call."""
        if self._compiled:
            self._compiler.look()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Compute as without these forwards inside the block."""
        before, self._in_force = self._in_force, False
        try:
            yield
        finally:
            self._in_force = before

    def _forward_of(self, block: torch.nn.Module, before: Any) -> Callable[..., Any]:
        def plain(method: str = "forward") -> Callable[..., Any]:
            return before or MethodType(getattr(type(block), method), block)

        def forward(*arguments: Any, **options: Any) -> Any:
            recomputed = block in self._recomputed and torch.is_grad_enabled()
            chosen = plain()
            if not self._in_force:
                return chosen(*arguments, **options)
            if block in self._compiled:
                inner = plain(self._method)
                chosen = (
                    self._compiler.compiled_before(block, inner, arguments, options)
                    if recomputed
                    else self._compiler.compiled(block, inner)
                )
            if recomputed:
                return checkpoint(chosen, *arguments, use_reentrant=False, **options)
            return chosen(*arguments, **options)

        return forward
