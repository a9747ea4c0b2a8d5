"""Captions of the toy world as token numbers, and a text encoder that learns to name the tags before the UNet sees it.

Trained only through the UNet, so small an encoder confuses colors for thousands of steps; a minute of naming tags first
lets hair, outfits and backgrounds follow the caption from the start.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_lora_trainer.demo import world
from lib_lora_trainer.hosts.tokenizer_files import write_clip_tokenizer

logger = logging.getLogger(__name__)

SEED = 12
STEPS = 1400
BATCH = 64
RATE = 1e-3
LENGTH = 77
START, END = 49406, 49407
WORDS = 49406
"""Token numbers below this are words or parts of words."""


@dataclass(frozen=True)
class Caption:
    """Token numbers of one caption, padded with END to 77, and where each named tag of the world ends.

    ``ends`` holds (position, index into ``world.VOCABULARY``).
    """

    tokens: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """Return CLIP's tokenizer, writing its files into ``work`` first if they are not there."""
    folder = work / "tokenizer"
    if not (folder / "vocab.json").exists():
        write_clip_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(str(folder))


def tag_tokens(tokenizer: CLIPTokenizer) -> dict[str, list[int]]:
    """Return the token numbers of every tag of the world and of the comma."""
    return {tag: tokenizer(tag, add_special_tokens=False).input_ids for tag in (*world.VOCABULARY, ",")}


def make_caption(tags: tuple[str, ...], numbers: dict[str, list[int]], rng: Random) -> Caption:
    """Return a training caption: tags shuffled, some dropped, sometimes with unknown words, one in ten empty.

    An unknown word is one to three random word pieces at a random place; the encoder learns to pass over it.
    """
    kept = [] if rng.random() < 0.1 else [tag for tag in tags if rng.random() > 0.1]
    rng.shuffle(kept)
    pieces = [(numbers[tag], world.VOCABULARY.index(tag)) for tag in kept]
    if rng.random() < 0.2:
        unknown = [rng.randrange(512, WORDS) for _ in range(rng.randint(1, 3))]
        pieces.insert(rng.randint(0, len(pieces)) if rng.random() < 0.5 else 0, (unknown, -1))
    tokens = [START]
    ends = []
    for index, (part, tag) in enumerate(pieces):
        if index:
            tokens += numbers[","]
        tokens += part
        if tag >= 0:
            ends.append((len(tokens) - 1, tag))
    tokens += [END] * (LENGTH - len(tokens))
    return Caption(tuple(tokens), tuple(ends))


def make_text_encoder() -> CLIPTextModel:
    """Return an untrained CLIP text encoder: 64 wide, 3 layers, 4 heads, 77 positions, CLIP's 49,408 tokens.

    Word vectors start larger than positions, so that words the training never shows stay distinguishable.
    """
    config = CLIPTextConfig(
        vocab_size=WORDS + 2,
        hidden_size=64,
        intermediate_size=256,
        projection_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = CLIPTextModel(config)
    embeddings = model.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.1)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.03)
    return model


def train_text_encoder(work: Path) -> None:
    """Teach the text encoder to name the tags and write ``text.pt``; about three minutes on two cores.

    Cross-entropy at the last token of each tag, multi-label cross-entropy at the end token. Returns at once if
    ``text.pt`` is there.
    """
    if (work / "text.pt").exists():
        return
    torch.manual_seed(SEED)
    rng = Random(SEED)
    numbers = tag_tokens(load_tokenizer(work))
    model = make_text_encoder()
    heads = nn.ModuleDict({"tag": nn.Linear(64, len(world.VOCABULARY)), "end": nn.Linear(64, len(world.VOCABULARY))})
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=RATE, weight_decay=0.0)
    started = time.monotonic()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50, (STEPS - step) / 300)
        captions = [make_caption(world.tags(world.sample_figure(rng)), numbers, rng) for _ in range(BATCH)]
        loss, accuracy = _naming_loss(model, heads, captions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == STEPS - 1:
            elapsed = time.monotonic() - started
            logger.info("text step %d loss %.4f accuracy %.3f, %.0f s", step, loss.item(), accuracy, elapsed)
    torch.save(model.state_dict(), work / "text.pt")


def _naming_loss(model: CLIPTextModel, heads: nn.ModuleDict, captions: list[Caption]) -> tuple[Tensor, float]:
    hidden = model(torch.tensor([caption.tokens for caption in captions])).last_hidden_state
    rows = [(row, place, tag) for row, caption in enumerate(captions) for place, tag in caption.ends]
    row, place, tag = torch.tensor(rows).unbind(1)
    scores = heads["tag"](hidden[row, place])
    present = torch.zeros(len(captions), len(world.VOCABULARY))
    present[row, tag] = 1.0
    end = [caption.tokens.index(END) for caption in captions]
    at_end = functional.binary_cross_entropy_with_logits(
        heads["end"](hidden[torch.arange(len(captions)), torch.tensor(end)]), present
    )
    accuracy = (scores.argmax(1) == tag).float().mean().item()
    return functional.cross_entropy(scores, tag) + 2 * at_end, accuracy


def load_text_encoder(work: Path) -> CLIPTextModel:
    """Return the text encoder as ``train_text_encoder`` left it."""
    model = make_text_encoder()
    model.load_state_dict(torch.load(work / "text.pt"))
    return model
