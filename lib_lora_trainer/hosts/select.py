"""Hosts by name."""

from __future__ import annotations

from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.hosts.api import Host

NAMES = ("standalone", "webui")


def open_host(name: str, checkpoint: Path | None = None, adapters: Path | None = None, device: str = "auto") -> Host:
    """Return the host of that name.

    checkpoint, adapters, device: the file, the folder for adapters and the device of the standalone host; the WebUI has
    its own. Raises ConfigError for an unknown name, a missing checkpoint, or `webui` outside of a WebUI.
    """
    if name == "standalone":
        if checkpoint is None:
            raise ConfigError("host standalone: no checkpoint is given. Name a .safetensors file with --checkpoint.")
        from lib_lora_trainer.hosts.standalone.host import StandaloneHost

        return StandaloneHost(checkpoint, adapters or checkpoint.parent, device)
    if name == "webui":
        try:
            from lib_lora_trainer.hosts.webui.host import WebuiHost
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"host webui: this is no process of the WebUI ({error}). Use --host standalone with a checkpoint file."
            ) from error
        return WebuiHost()
    raise ConfigError(f"host: {name!r} is unknown. Choose one of: {', '.join(NAMES)}.")
