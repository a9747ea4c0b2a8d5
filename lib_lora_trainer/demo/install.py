"""The toy checkpoint for a WebUI, so that the extension can be tried without a real model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.base.files import replacing, write_text
from lib_lora_trainer.demo.run import ASSETS, CHECKPOINT
from lib_lora_trainer.hosts.tokenizer_files import write_clip_tokenizer

NAME = "lora-trainer-toy"
PLACEHOLDER = "TEXT_ENCODER_FOLDER"


def install(webui: Path) -> Iterator[Path]:
    """Write the checkpoint, its yaml, its text encoder's configuration and the demo's dataset; yield each path.

    The yaml names the text encoder's folder with its absolute path: run this again after moving the WebUI.
    Raises UserError when `webui` is not a WebUI's folder.
    """
    models = webui.resolve() / "models"
    if not (models / "Stable-diffusion").is_dir():
        raise UserError(f"{webui}: no models/Stable-diffusion folder is there. Give the WebUI's own folder.")
    text = models / NAME
    text.mkdir(exist_ok=True)
    write_clip_tokenizer(text)
    write_text(text / "config.json", (ASSETS / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    yield text
    checkpoint = models / "Stable-diffusion" / f"{NAME}.safetensors"
    with replacing(checkpoint) as temporary:
        shutil.copyfile(CHECKPOINT, temporary)
    yield checkpoint
    yaml = CHECKPOINT.with_suffix(".yaml").read_text(encoding="utf-8")
    if PLACEHOLDER not in yaml:
        raise UserError(f"{CHECKPOINT.with_suffix('.yaml')}: {PLACEHOLDER} is missing. Get this file anew.")
    # A JSON string is a YAML string too, whatever the path's characters.
    write_text(checkpoint.with_suffix(".yaml"), yaml.replace(PLACEHOLDER, json.dumps(str(text))))
    yield checkpoint.with_suffix(".yaml")
    dataset = models / NAME / "character"
    shutil.copytree(ASSETS / "character", dataset, dirs_exist_ok=True)
    yield dataset
