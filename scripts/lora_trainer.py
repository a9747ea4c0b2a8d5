"""Registers the LoRA Trainer tab with the WebUI; everything else is in the package lib_lora_trainer."""

from lib_lora_trainer.hosts.webui import register

register.register()
