"""What the plan's rules look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lib_lora_trainer.captions.variants import effective
from lib_lora_trainer.config.data import CaptionConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.hosts.api import ModelInfo


@dataclass(frozen=True)
class Case:
    """A run before its start. Settings are in their ranges.

    images: seen over the run; steps: of the whole run, 0 when not known; parts: of the model that are trained.
    """

    info: ModelInfo
    config: RunConfig
    scan: Scan
    images: int
    steps: int
    parts: frozenset[str]

    @property
    def pictures(self) -> tuple[Item, ...]:
        """The pictures to learn, regularization images left out."""
        return tuple(item for item in self.scan.items if not item.regularization)

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder is trained."""
        return any(part != "unet" for part in self.parts)

    def caption_settings(self, item: Item) -> CaptionConfig:
        """Return the caption settings that a picture's source has."""
        return effective(self.config.data.caption, self.config.data.sources[item.source])

    def numbered_sources(self) -> Iterator[tuple[str, SourceConfig]]:
        """Yield each source with its setting's dotted name."""
        for index, source in enumerate(self.config.data.sources):
            yield f"data.sources[{index}]", source


def times_seen(concept: Concept, concepts: Sequence[Concept], images: int, balanced: bool) -> int:
    """Return how often a run shows the pictures of a concept, give or take the rounding of its last epoch.

    concepts: all of them; images: seen over the run; balanced: whether regularization images are as many as the others.
    """
    training = sum(each.exposures for each in concepts if not each.regularization)
    others = sum(each.exposures for each in concepts if each.regularization)
    shown = training if balanced and others else others
    own = concept.exposures * (shown / others if concept.regularization else 1)
    return round(images * own / (training + shown)) if training + shown else 0


def named(names: tuple[str, ...] | list[str]) -> str:
    """Return names as `a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
