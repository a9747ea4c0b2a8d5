"""Trains the toy tagger and writes it with WD14's contract: 448 x 448 BGR in, one probability per tag out."""

from __future__ import annotations

import csv
import io
import logging
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.build import pictures
from lib_lora_trainer.demo.build.autoencoder import load_autoencoder, to_model
from lib_lora_trainer.demo.build.sampling import to_pictures

logger = logging.getLogger(__name__)

SEED = 14
FIGURES = 6000
FIRST_PICTURE = 3_000_000
ROUND_TRIPS = 1600
"""That many of the pictures pass through the autoencoder, most with some noise on the latents."""
STEPS = 1100
BATCH = 40
RATE = 3e-3
INPUT_SIDE = 448
INNER_SIDE = 112
RATINGS = ("general", "sensitive", "questionable", "explicit")


class Tagger(nn.Module):
    """A small convolutional network that averages its 448 x 448 input down to 112 x 112 first."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 40, 56, 80)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(80, 112, 3, 1, 1, bias=False), nn.BatchNorm2d(112), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.squeeze = nn.Sequential(nn.Conv2d(112, 24, 1), nn.ReLU())
        self.answer = nn.Linear(24 * 49 + 112, len(RATINGS) + len(world.TAGGER_TAGS))

    def score(self, small: Tensor) -> Tensor:
        """Return scores (N, tags) before the sigmoid for (N, 3, 112, 112) BGR in [0, 255]."""
        features = self.features(small / 127.5 - 1.0)
        places = self.squeeze(features).flatten(1)
        scores: Tensor = self.answer(torch.cat([places, features.amax((2, 3))], 1))
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (N, tags) for (N, 448, 448, 3) float32 BGR in [0, 255]."""
        small = functional.avg_pool2d(image.permute(0, 3, 1, 2), INPUT_SIDE // INNER_SIDE)
        return self.score(small).sigmoid()


def make_targets(figures: list[world.Figure]) -> Tensor:
    """Return the wanted answers (N, tags): the rating is always general."""
    targets = torch.zeros(len(figures), len(RATINGS) + len(world.TAGGER_TAGS))
    targets[:, 0] = 1.0
    for row, figure in enumerate(figures):
        for tag in world.tags(figure):
            targets[row, len(RATINGS) + world.TAGGER_TAGS.index(tag)] = 1.0
    return targets


def shrink(array: NDArray[np.uint8]) -> Tensor:
    """Return pictures (N, 128, 128, 3) RGB as the network sees them inside, (N, 3, 112, 112) uint8 BGR.

    The way there is the tagger's own: bicubic to 448, then averages of 4 x 4.
    """
    small = []
    for picture in array:
        large = Image.fromarray(picture).resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BICUBIC)
        inner = large.reduce(INPUT_SIDE // INNER_SIDE)
        small.append(np.asarray(inner)[:, :, ::-1])
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def train_tagger(work: Path) -> None:
    """Train on drawn, compressed and autoencoded pictures and write ``tagger.pt``; about six minutes on two cores.

    Returns at once if ``tagger.pt`` is there.
    """
    if (work / "tagger.pt").exists():
        return
    torch.manual_seed(SEED)
    figures = pictures.any_figures(FIGURES, SEED)
    images = _training_images(work, figures)
    targets = make_targets(figures)
    model = Tagger()
    logger.info("tagger: %d parameters", sum(weight.numel() for weight in model.parameters()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    started = time.monotonic()
    for step in range(STEPS):
        chosen = torch.from_numpy(np.random.default_rng((SEED, step)).integers(0, FIGURES, BATCH))
        scores = model.score(_disturb(images[chosen].float()))
        loss = functional.binary_cross_entropy_with_logits(scores, targets[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            logger.info("tagger step %d loss %.4f, %.0f s", step, loss.item(), time.monotonic() - started)
    torch.save(model.state_dict(), work / "tagger.pt")


def _training_images(work: Path, figures: list[world.Figure]) -> Tensor:
    path = work / "tagger_images.pt"
    if path.exists():
        saved: Tensor = torch.load(path)
        return saved
    array = pictures.draw_figures(figures, FIRST_PICTURE)
    for start in range(0, ROUND_TRIPS, 40):
        array[start : start + 40] = round_trip(work, array[start : start + 40], start)
    rng = np.random.default_rng(SEED)
    for index in range(ROUND_TRIPS // 2, ROUND_TRIPS + 1500):
        packed = io.BytesIO()
        Image.fromarray(array[index]).save(packed, "JPEG", quality=int(rng.integers(25, 90)))
        array[index] = np.asarray(Image.open(packed))
    images = shrink(array)
    torch.save(images, path)
    return images


@torch.no_grad()
def round_trip(work: Path, array: NDArray[np.uint8], seed: int, noise: float = 0.35) -> NDArray[np.uint8]:
    """Return the pictures after the autoencoder; latents get up to ``noise`` of their deviation in noise."""
    autoencoder = load_autoencoder(work)
    generator = torch.Generator().manual_seed(seed)
    latents = autoencoder.encode(to_model(array)).latent_dist.mean
    amount = noise * torch.rand((len(array), 1, 1, 1), generator=generator) * latents.std()
    latents = latents + amount * torch.randn(latents.shape, generator=generator)
    return to_pictures(autoencoder.decode(latents).sample)


def _disturb(images: Tensor) -> Tensor:
    """Return the images shifted by up to 5 pixels, some blurred, with other brightness and a little noise."""
    down, across = torch.randint(0, 11, (2,)).tolist()
    side = images.shape[-1]
    images = functional.pad(images, (5, 5, 5, 5), mode="replicate")[..., down : down + side, across : across + side]
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(len(images), 1, 1, 1) * (torch.rand(len(images), 1, 1, 1) < 0.5)
    images = images + share * (blurred - images)
    contrast = 1 + 0.2 * (torch.rand(len(images), 1, 1, 1) - 0.5)
    brightness = 30 * (torch.rand(len(images), 3, 1, 1) - 0.5)
    noise = 16 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    return ((images - 127.5) * contrast + 127.5 + brightness + noise).clamp(0, 255)


def export_tagger(work: Path, assets: Path) -> None:
    """Write model.onnx (opset 17, dynamic batch) and selected_tags.csv into ``assets``/tagger."""
    model = Tagger().eval()
    model.load_state_dict(torch.load(work / "tagger.pt"))
    folder = assets / "tagger"
    folder.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (torch.zeros(1, INPUT_SIDE, INPUT_SIDE, 3),),
        str(folder / "model.onnx"),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    counts = make_targets(pictures.any_figures(FIGURES, SEED)).sum(0).int().tolist()
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("tag_id", "name", "category", "count"))
        names = (*RATINGS, *world.TAGGER_TAGS)
        for number, (name, count) in enumerate(zip(names, counts, strict=True)):
            writer.writerow((number, name.replace(" ", "_"), 9 if name in RATINGS else 0, count))
