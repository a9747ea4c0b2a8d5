"""The command line: `python -m lib_lora_trainer COMMAND …`."""

from lib_lora_trainer.cli.program import main

__all__ = ["main"]
