"""Regularization images for the demo: what the untrained checkpoint makes of the captions without the trigger.

Trained on beside the character, they keep words that are not the trigger as they were, so that the character does not
show up uncalled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.base.files import replacing, write_text
from lib_lora_trainer.captions.reduced import cut, reduced
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.measure import request
from lib_lora_trainer.hosts.api import Lease

SEED = 40_000


def make(lease: Lease, captions: Sequence[str], rounds: int, folder: Path) -> Iterator[Phase]:
    """Write `rounds` images per caption into `folder`, each with the reduced caption beside it, seeds counting up."""
    without = cut((world.TRIGGER,), ())
    prompts = [reduced(caption, without, weighted=False) for _ in range(rounds) for caption in captions]
    requests = [request(prompt, SEED + index) for index, prompt in enumerate(prompts)]
    for index, made in enumerate(lease.generate(requests)):
        path = folder / f"{index:03d}.png"
        with replacing(path) as temporary:
            made.image.save(temporary, format="PNG")
        write_text(path.with_suffix(".txt"), made.request.prompt)
        yield Phase("making regularization images", index + 1, len(prompts))
