"""A model open in onnxruntime, on the best provider that really starts, until it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.tagging.preprocess import layout_of

CPU = "CPUExecutionProvider"
# Best first. TensorRT is left out: it compiles a model for minutes before the first picture. So is CoreML, which takes
# parts of a graph only and hands the rest back and forth.
PROVIDERS = {
    "CUDAExecutionProvider": "CUDA",
    "MIGraphXExecutionProvider": "MIGraphX",
    "ROCMExecutionProvider": "ROCm",
    "DmlExecutionProvider": "DirectML",
    "OpenVINOExecutionProvider": "OpenVINO",
}
ON_GPU = frozenset(PROVIDERS) - {"OpenVINOExecutionProvider"}  # OpenVINO computes on the CPU unless told otherwise


class Session:
    """A model that is open.

    layout: what it takes; outputs: how many probabilities it gives, 0 where it does not say; provider: what computes;
    note: what the user should know about that, if anything.
    """

    def __init__(self, inner: Any, provider: str, note: Note | None = None) -> None:
        """inner: the onnxruntime session. Raises ValueError for a model that takes no square pictures."""
        about, outputs = inner.get_inputs()[0], inner.get_outputs()[0].shape[-1]
        self.layout = layout_of(about.shape, about.type)
        self.outputs = outputs if isinstance(outputs, int) else 0
        self.provider = provider
        self.note = note
        self._name = about.name
        self._inner = inner

    def close(self) -> None:
        """Give the memory back; onnxruntime frees a session with the last reference to it."""
        self._inner = None

    @property
    def on_gpu(self) -> bool:
        """Whether it computes where pictures are generated."""
        return self.provider in ON_GPU

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probabilities (N, outputs) float32 in [0, 1] of prepared pictures (N, …) as the layout has them.

        A batch smaller than the model's own is filled up and cut again. Outputs beyond [0, 1] are logits (models from
        timm end before the sigmoid). Raises UserError when the provider fails, as without memory, or
        gives no numbers.
        """
        if self._inner is None:
            raise ValueError("the session is closed")
        missing = self.layout.batch - len(batch) if self.layout.batch else 0
        if missing > 0:
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        try:
            found = self._inner.run(None, {self._name: batch})[0]
        except Exception as error:  # each provider has exceptions of its own, with no common base
            raise UserError(
                f"{PROVIDERS.get(self.provider, 'The CPU')} could not tag {len(batch)} pictures at once: "
                f"{_reason(error)}. Use a smaller batch, or tag on the CPU."
            ) from error
        values = np.asarray(found, dtype=np.float32)[: len(batch) - max(missing, 0)]
        if not np.isfinite(values).all():
            where = PROVIDERS.get(self.provider, "the CPU")
            raise UserError(f"The tagger gives values that are no numbers on {where}. Tag on the CPU, or get it anew.")
        if values.size and (values.min() < 0.0 or values.max() > 1.0):
            values = 1.0 / (1.0 + np.exp(-values))
        return values


def available() -> tuple[str, ...]:
    """Return the providers of the installed onnxruntime that are used here, best first. Raises UserError without it."""
    offered = _onnxruntime().get_available_providers()
    return tuple(provider for provider in PROVIDERS if provider in offered)


def gpu_offered(device: str) -> bool:
    """Tell whether a session may come to compute where pictures are generated; it is known only once it is open."""
    return device == "auto" and any(provider in ON_GPU for provider in available())


@contextmanager
def opened(model: Path, device: str = "auto") -> Iterator[Session]:
    """Yield a model's session, closed and its memory given back when the block ends. Raises as `start`."""
    session = start(model, device)
    try:
        yield session
    finally:
        session.close()


def start(model: Path, device: str = "auto") -> Session:
    """Return a model's session, whose `note` says why it is on the CPU where a GPU was wanted.

    device: `auto` for the best provider that starts, or `cpu`.
    Raises UserError without onnxruntime or with one too old for the model, DataError for a file that is no tagger.
    """
    runtime = _onnxruntime()
    if not model.is_file():
        raise DataError(f"{model}: there is no such file. Choose a folder with model.onnx and selected_tags.csv.")
    wanted = available() if device == "auto" else ()
    if "CUDAExecutionProvider" in wanted and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # from 1.21 on it finds the CUDA libraries that pip packages carry
    inner, failed = None, []
    for provider in (*wanted, CPU):
        if provider == CPU and inner is not None:
            break  # one that could not start left its session to the CPU
        try:
            inner = _open(runtime, model, provider)
        except Exception as error:  # each provider has exceptions of its own, with no common base
            if provider == CPU:
                raise _unusable(runtime, model, error) from error
            failed.append(f"{PROVIDERS[provider]} ({_reason(error)})")
            continue
        # Without its libraries a provider is left out in silence; what is in use is known only afterwards.
        if provider == CPU or inner.get_providers()[0] == provider:
            break
        failed.append(f"{PROVIDERS[provider]} (its libraries could not be loaded; the console says which)")
    assert inner is not None  # the CPU's either opened or raised
    used = inner.get_providers()[0]
    try:
        return Session(inner, used, _note(runtime, used, device, failed))
    except ValueError as error:
        raise DataError(f"{model}: {error}. Choose a WD14 tagger.") from error


def _open(runtime: Any, model: Path, provider: str) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about graph optimizations
    if provider == "DmlExecutionProvider":  # as its page in onnxruntime's documentation asks for
        options.enable_mem_pattern = False
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    return runtime.InferenceSession(str(model), options, providers=list(dict.fromkeys((provider, CPU))))


def _note(runtime: Any, used: str, device: str, failed: list[str]) -> Note | None:
    if device == "cpu" or (used != CPU and not failed):
        return None
    where = PROVIDERS.get(used, "the CPU")
    if failed:
        return Note("warning", f"Tagging runs on {where}, because this could not start: {', '.join(failed)}.")
    text = f"Tagging runs on the CPU: onnxruntime {runtime.__version__}, as installed, has no provider for a GPU."
    return Note("note", text)


def _unusable(runtime: Any, model: Path, error: Exception) -> UserError:
    reason = _reason(error)
    if "opset" in reason.lower() or "ir version" in reason.lower():
        return UserError(
            f"{model}: onnxruntime {runtime.__version__} is too old for it ({reason}). The WD models of version 3 need "
            "1.17 or newer: pip install -U onnxruntime."
        )
    return DataError(f"{model}: cannot be opened as an ONNX model ({reason}). Get it anew.")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"onnxruntime cannot be imported ({error}). Install it: pip install onnxruntime.") from error
    return onnxruntime
