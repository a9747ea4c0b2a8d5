"""Measures whether the toy checkpoint draws what the tags say, with the toy tagger as the judge."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.build import sampling, text
from lib_lora_trainer.demo.build.autoencoder import load_autoencoder
from lib_lora_trainer.demo.build.denoiser import cache_latents, load_denoiser
from lib_lora_trainer.demo.build.tagger import INPUT_SIDE, RATINGS

logger = logging.getLogger(__name__)

SEED = 16
CAPTIONS = 200
AT_ONCE = 25


def judge(model: Path, array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the tagger's probabilities (N, tags without ratings) for pictures (N, 128, 128, 3) RGB."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answers = []
    for picture in array:
        large = Image.fromarray(picture).resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BICUBIC)
        batch = np.asarray(large, np.float32)[None, :, :, ::-1]
        answers.append(session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(batch)})[0][0])
    return np.stack(answers)[:, len(RATINGS) :]


def group_accuracy(figures: list[world.Figure], answers: NDArray[np.float32]) -> dict[str, float]:
    """Return, per group of tags, the part of figures whose wanted tag is the likeliest of its group.

    For the accessory, a figure without one counts as right if no accessory reaches 0.5.
    """
    rates = {}
    for group, tags in world.GROUPS.items():
        columns = [world.TAGGER_TAGS.index(tag) for tag in tags]
        right = []
        for figure, row in zip(figures, answers[:, columns], strict=True):
            wanted = getattr(figure, group)
            right.append(tags[int(row.argmax())] == wanted if wanted else bool(row.max() < 0.5))
        rates[group] = float(np.mean(right))
    return rates


def log_accuracy(work: Path, assets: Path) -> None:
    """Log each group's accuracy on 200 captions."""
    for group, rate in measure_accuracy(work, assets, CAPTIONS).items():
        logger.info("%s %.3f", group, rate)


def measure_accuracy(work: Path, assets: Path, captions: int) -> dict[str, float]:
    """Draw ``captions`` random figures with the trained modules, write sheet.png, return each group's accuracy."""
    rng = Random(SEED)
    figures = [world.sample_figure(rng) for _ in range(captions)]
    unet, encoder = load_denoiser(work)
    autoencoder = load_autoencoder(work)
    tokenizer = text.load_tokenizer(work)
    empty = sampling.encode_captions(encoder, tokenizer, [""])
    parts = []
    for start in range(0, captions, AT_ONCE):
        prompts = [", ".join(world.tags(figure)) for figure in figures[start : start + AT_ONCE]]
        context = sampling.encode_captions(encoder, tokenizer, prompts)
        with torch.autocast("cpu", torch.bfloat16):
            latents = sampling.sample_latents(unet, context, empty, SEED + start)
        parts.append(sampling.decode_latents(autoencoder, latents, cache_latents(work).scale_factor))
    array = np.concatenate(parts)
    rows = [np.concatenate(list(array[start : start + 8]), 1) for start in range(0, min(captions, 40) // 8 * 8, 8)]
    Image.fromarray(np.concatenate(rows)).save(work / "sheet.png")
    return group_accuracy(figures, judge(assets / "tagger" / "model.onnx", array))
