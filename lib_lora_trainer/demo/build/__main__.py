"""Builds everything under demo/assets: ``python -m lib_lora_trainer.demo.build --work DIR [STAGE ...]``.

Stages, in order, with the time each took on two cores of a busy machine: vae 23 min, text 4 min, unet 45 min,
tagger 9 min, dataset and export a few seconds, check 3 min. Needs diffusers, transformers, onnx and
open_clip_torch (for CLIP's word list). Every stage keeps its result in the work folder and is skipped when it is
there; vae and unet also resume from their last saved state. Seeds are fixed; other versions of torch or
numbers of threads change the last digits.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def stages() -> dict[str, Callable[[Path, Path], None]]:
    """Return the stages by name in order; each takes the work folder and the assets folder."""
    from lib_lora_trainer.demo.build import autoencoder, character, check, denoiser, export, tagger, text

    def finish_tagger(work: Path, assets: Path) -> None:
        tagger.train_tagger(work)
        tagger.export_tagger(work, assets)

    return {
        "vae": lambda work, _: autoencoder.train_autoencoder(work),
        "text": lambda work, _: text.train_text_encoder(work),
        "unet": lambda work, _: denoiser.train_denoiser(work),
        "tagger": finish_tagger,
        "dataset": lambda _, assets: character.write_character(assets),
        "export": export.export_checkpoint,
        "check": check.log_accuracy,
    }


def main() -> None:
    """Parse the command line and run the named stages, or all of them."""
    known = stages()
    parser = argparse.ArgumentParser(prog="python -m lib_lora_trainer.demo.build", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states, caches and results of stages")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder to write the finished files into")
    parser.add_argument("stages", nargs="*", choices=[[], *known], default=[], help="default: all of them, in order")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen.work.mkdir(parents=True, exist_ok=True)
    for name, stage in known.items():
        if name in chosen.stages or not chosen.stages:
            logging.getLogger(__name__).info("stage %s", name)
            stage(chosen.work, chosen.assets)


if __name__ == "__main__":
    main()
