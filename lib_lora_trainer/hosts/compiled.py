"""torch.compile on parts of a network: whether it works here, and what is compiled while a lease lasts."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from lib_lora_trainer.base.errors import HostRefusal

_ADVICE = 'Switch "Compile" off.'
_FAILURES = (
    RuntimeError,
    ImportError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    subprocess.SubprocessError,
)
# torch 2.1 counts the versions of one function, later ones under new names; a UNet has up to 90 blocks of two kinds.
_LIMITS = ("cache_size_limit", "accumulated_cache_size_limit", "recompile_limit", "accumulated_recompile_limit")
_VERSIONS = 4096


def check(device: torch.device, float8: bool) -> None:
    """Raise HostRefusal with the reason when torch.compile does not work here. float8: also on weights in 8 bits."""
    reason = reason_against(device.type, float8)
    if reason:
        raise HostRefusal(f"The UNet cannot be compiled: {reason}. {_ADVICE}")


@functools.cache
def reason_against(kind: str, float8: bool) -> str:
    """Return why torch.compile does not work on a kind of device; empty if it does, which a small function shows.

    It takes a C++ compiler or triton, and a torch made for this Python; only trying it says whether all are there.
    """
    if sys.platform == "win32" and kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "on Windows it needs triton (pip install triton-windows), which is not installed"
    reason = reason_against(kind, False) if float8 else ""
    try:
        if not reason:
            _try(torch.device(kind), float8)
    except _FAILURES as error:
        reason = _first_line(error)
        if float8:
            return f"torch {torch.__version__} compiles here, but no layers with 8-bit weights ({reason})"
    return reason


def _try(device: torch.device, float8: bool) -> None:
    weight = torch.eye(8, device=device)
    if float8:
        weight = weight.to(torch.float8_e4m3fn)
    inputs = torch.ones(2, 8, device=device, requires_grad=True)

    def compute(values: torch.Tensor) -> torch.Tensor:
        return F.linear(F.silu(values), weight.to(values.dtype)) * 2

    # A thread may come here with gradients switched off.
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        torch.compile(compute)(inputs).sum().backward()
    if inputs.grad is None or not torch.isfinite(inputs.grad).all():
        raise RuntimeError(f"torch {torch.__version__} compiles, but computes no gradient")


def _first_line(error: Exception) -> str:
    """Return the error's kind and the first line of its text that says something."""
    lines = [line.strip().rstrip(".:") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith("backend=")]
    return f"{type(error).__name__}, {kept[0]}" if kept else type(error).__name__


class Compiler:
    """Compiled forwards of blocks, from entering to leaving.

    A compiled forward has the adapters inside that were attached when it was first called. When something is attached
    or taken off, all are compiled anew at their next call. Blocks with hooks inside are not compiled: torch leaves out
    hooks that it did not see.
    """

    def __init__(self, blocks: Sequence[torch.nn.Module]) -> None:
        self._inner = {block: [module for module in block.modules() if module is not block] for block in blocks}
        self._versions: dict[torch.nn.Module, _Version] = {}
        self._hooked: set[torch.nn.Module] = set()
        self._seen: list[object] = []
        self._limits: dict[str, int] = {}

    def __enter__(self) -> Compiler:
        import torch._dynamo as dynamo

        # For the whole time: torch 2.1 compiles anew when its configuration changes between forward and backward.
        for name in _LIMITS:
            if hasattr(dynamo.config, name):
                self._limits[name] = getattr(dynamo.config, name)
                setattr(dynamo.config, name, max(_VERSIONS, self._limits[name]))
        return self

    def __exit__(self, *_: object) -> None:
        import torch._dynamo as dynamo

        self._forget()
        while self._limits:
            name, value = self._limits.popitem()
            setattr(dynamo.config, name, value)

    def look(self) -> None:
        """Notice adapters and hooks that were attached or taken off since the last time."""
        found = list(self._attached())
        if len(found) != len(self._seen) or any(now is not then for now, then in zip(found, self._seen, strict=True)):
            self._forget()
            self._seen = found

    def compiled(self, block: torch.nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a block's forward compiled; forward: what it is otherwise, the same at every call for one block."""
        if block in self._hooked:
            return forward
        if block not in self._versions:
            self._versions[block] = _Version(forward)
        return self._versions[block].call

    def compiled_before(
        self, block: torch.nn.Module, forward: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
    ) -> Callable[..., Any]:
        """Return a block's forward as it is compiled for such arguments; it will compile nothing when it is called.

        torch 2.1 cannot compile while activations are replaced, as in the forward pass of a recomputed block: that
        would count the compiler's own tensors among them. So the first call is made before, and its result dropped.
        What turns up later and needs another version, such as another strength of an adapter, runs uncompiled.
        """
        if block in self._hooked:
            return forward
        call = self.compiled(block, forward)
        version, signature = self._versions[block], _signature(arguments, options)
        if signature not in version.seen:
            devices = {value.device for value in arguments if isinstance(value, torch.Tensor) and value.is_cuda}
            with torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices)):
                call(*arguments, **options)
            version.seen.add(signature)
        return version.known

    def _forget(self) -> None:
        """Drop what is compiled. torch keeps it with the code of the functions, for all that are compiled at once."""
        if self._versions:
            self._versions.clear()
            torch._dynamo.reset()
        self._seen = []

    def _attached(self) -> Iterator[object]:
        self._hooked.clear()
        for block, modules in self._inner.items():
            for module in modules:
                hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
                if "forward" in module.__dict__ or hooks:
                    yield from (module, module.__dict__.get("forward"), *hooks)
                if hooks:
                    self._hooked.add(block)


class _Version:
    """A compiled forward. call: compiles what is new; known: does not, and runs that uncompiled; seen: signatures."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        compiled = torch.compile(forward)
        self.call = _naming_failures(compiled)
        self.known: Callable[..., Any] = torch._dynamo.run(compiled)
        self.seen: set[Any] = set()


def _signature(arguments: Sequence[Any], options: dict[str, Any]) -> tuple[Any, ...]:
    """Return what of a call's arguments asks for another compiled version."""

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.shape, value.stride(), value.dtype, value.device, value.requires_grad
        return value if isinstance(value, (bool, int, float, str, type(None))) else type(value)

    return tuple(map(of, arguments)), tuple((name, of(value)) for name, value in options.items())


def _naming_failures(compiled: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            return compiled(*arguments, **options)
        except TorchDynamoException as error:
            raise HostRefusal(f"A block of the UNet could not be compiled: {_first_line(error)}. {_ADVICE}") from error

    return call
