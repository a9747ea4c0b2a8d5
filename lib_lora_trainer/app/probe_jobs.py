"""The contamination probe as a generator of events: pictures of bare words on the base model, and what they say."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from lib_lora_trainer.app.preparation import DTYPES
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Phase, SampleMade
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.captions import triggers
from lib_lora_trainer.evaluate import probe
from lib_lora_trainer.evaluate.probe import Panel, ProbeOptions, Reading
from lib_lora_trainer.hosts.api import Host, ImageRequest, Lease, MadeImage, Needs
from lib_lora_trainer.plan.plan import resolve_precision
from lib_lora_trainer.tagging import wd14
from lib_lora_trainer.tagging.models import Found
from lib_lora_trainer.tagging.wd14 import Tagger

_PHASE = "probing words"


@dataclass(frozen=True)
class ProbeRequest:
    """What is probed. wanted: tags that the words are to stand for; folder: for the pictures.

    device: where the tagger computes; by default beside the model, on the CPU.
    """

    words: tuple[str, ...]
    tagger: Found
    folder: Path
    options: ProbeOptions = field(default_factory=ProbeOptions)
    wanted: Collection[str] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Pictures:
    """The pictures of one prompt: "" for the empty one; in the order of the seeds."""

    word: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Probed:
    """What the probe found: a reading for each word, and the pictures of the empty prompt, random words and words."""

    readings: tuple[Reading, ...]
    pictures: tuple[Pictures, ...]


def probe_words(host: Host, request: ProbeRequest, control: Control) -> Iterator[Event | Probed]:
    """Make pictures of bare words on the base model, without any adapter; the last value is Probed, or Finished.

    The same seeds for all words, next to the empty prompt and random words. Files are named by the number of the word
    and by the seed; those of an earlier probe with these names are replaced. Raises ProblemsFound for impossible words
    or options, ConfigError for a sampler that the host has not, HostRefusal, DataError for an unfit tagger.
    """
    _check(host, request)
    info, options = host.info(), request.options
    compared = ("", *probe.random_words(options.seed, options.random_words, request.words))
    prompts = (*compared, *request.words)
    total = len(prompts) * options.pictures
    panels: list[Panel] = []
    pictures: list[Pictures] = []
    needs = Needs(compute_dtype=DTYPES[resolve_precision("auto", info)])
    try:
        with wd14.opened(request.tagger, request.device) as tagger, host.lease(needs) as lease:
            yield Phase(_PHASE, 0, total)
            for number, word in enumerate(prompts):
                panel, paths = yield from _panel(lease, tagger, (number, word), request, control)
                panels.append(panel)
                pictures.append(Pictures(word, paths))
            labels = tagger.labels
    except Stopped:
        yield Finished("stopped", len(pictures), (), 0.0)
        return
    empty, meaningless = panels[0], panels[1 : len(compared)]
    yield Probed(
        tuple(probe.read(panel, empty, meaningless, labels, request.wanted) for panel in panels[len(compared) :]),
        tuple(pictures),
    )


def _check(host: Host, request: ProbeRequest) -> None:
    words = request.words
    problems = [*range_problems(request.options), *(each for word in words for each in triggers.errors(word))]
    if not words:
        problems.append(Problem("error", "words", "there is none.", "Give the word that is to be a trigger."))
    if len(set(words)) < len(words):
        problems.append(Problem("error", "words", "one is there twice.", "Give each word once."))
    if problems:
        raise ProblemsFound(tuple(problems))
    if request.options.sampler not in host.samplers():
        known = ", ".join(host.samplers())
        raise ConfigError(f"sampler: the host has no {request.options.sampler!r}. Choose one of: {known}.")


def _panel(
    lease: Lease, tagger: Tagger, numbered: tuple[int, str], request: ProbeRequest, control: Control
) -> Generator[Event, None, tuple[Panel, tuple[str, ...]]]:
    """Make the pictures of one prompt, write them and have the tagger look at each. Raises Stopped on the user's wish."""
    number, word = numbered
    count = request.options.pictures
    wanted = probe.requests(word, request.options, lease.info.family)
    paths: list[str] = []
    rows = []
    with closing(_iterated(lease, wanted, control)) as making:
        for made in making:
            path = request.folder / f"{number:02d}-{made.request.seed:06d}.png"
            text = PngInfo()
            text.add_text("parameters", made.infotext)
            with replacing(path) as temporary:
                made.image.save(temporary, format="PNG", pnginfo=text)
            rows.append(wd14.probabilities(tagger, [made.image])[0])
            paths.append(str(path))
            yield SampleMade(str(path), made.request.prompt, made.request.seed, 0, 0)
            yield Phase(
                _PHASE, number * count + len(paths), (1 + request.options.random_words + len(request.words)) * count
            )
    if len(rows) < count:  # interrupted, here or in the WebUI
        raise Stopped
    return Panel(word, np.stack(rows)), tuple(paths)


def _iterated(lease: Lease, wanted: Sequence[ImageRequest], control: Control) -> Generator[MadeImage, None, None]:
    for made in lease.generate(wanted, lambda: control.wish == "go"):
        if control.wish != "go":
            return
        yield made
