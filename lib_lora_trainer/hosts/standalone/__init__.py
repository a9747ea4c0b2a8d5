"""A host for single-file checkpoints, without a WebUI."""

from lib_lora_trainer.hosts.standalone.host import StandaloneHost

__all__ = ["StandaloneHost"]
