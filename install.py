"""Run by the WebUI at each start: adds the packages that this extension needs and the WebUI lacks."""

from __future__ import annotations

import os

from lib_lora_trainer import installer

if __name__ == "__main__":
    for line in installer.install(os.environ):
        print(f"{installer.NAME}: {line}")
