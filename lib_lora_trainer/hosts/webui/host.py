"""Automatic1111's WebUI 1.10 as a host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modules import sd_samplers, shared

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.hosts.api import ModelInfo, NamedUpscaler, Needs
from lib_lora_trainer.hosts.webui import blockweights, upscalers
from lib_lora_trainer.hosts.webui.lease import WebuiLease, check_needs
from lib_lora_trainer.hosts.webui.loaded import examine
from lib_lora_trainer.hosts.webui.restoring import lora_extension


class WebuiHost:
    """The WebUI whose process this is; it keeps nothing, so that it always speaks of what is loaded now."""

    def info(self) -> ModelInfo:
        """Return what is loaded; nothing is loaded by asking. Raises HostRefusal with the reason and the next step."""
        return examine().info

    def layers(self) -> Sequence[Layer]:
        """Return every Linear, Conv2d and norm that can be adapted. Raises HostRefusal as `info` does."""
        loaded = examine()
        return tuple(target.layer for target in loaded.targets(loaded.layered()))

    def lease(self, needs: Needs) -> WebuiLease:
        """Return exclusive use of the loaded model, to be entered in a thread that does not hold the WebUI's queue."""
        loaded = examine()
        check_needs(loaded, needs)
        return WebuiLease(loaded, needs)

    def samplers(self) -> tuple[str, ...]:
        """Return the samplers the user has not hidden."""
        return tuple(sd_samplers.visible_sampler_names())

    def upscalers(self) -> tuple[NamedUpscaler, ...]:
        """Return all that the WebUI lists, but for None and Lanczos."""
        return upscalers.listed()

    def adapter_folder(self) -> str:
        """Return the folder that the built-in Lora extension reads, with subfolders."""
        return str(shared.cmd_opts.lora_dir)

    def preset_files(self, name: str) -> tuple[Path, ...]:
        """Return the files of this name that `lbw=` in prompts reads: another extension's, then our own."""
        return blockweights.preset_files(name)

    def announce(self, path: str) -> None:  # noqa: ARG002
        """Have the built-in Lora extension list its folder anew; without that extension there is nothing to tell.

        Cards already shown in a browser change at its next refresh; `<lora:…>` finds the file at once.
        """
        networks = lora_extension()
        if networks is not None:
            networks.list_available_networks()
