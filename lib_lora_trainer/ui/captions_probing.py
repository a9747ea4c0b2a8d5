"""What happens on: probing words on the loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import probe_jobs, tag_jobs
from lib_lora_trainer.app.probe_jobs import Probed, ProbeRequest
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, RunConflict
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.dataset.thumbnails import thumbnail
from lib_lora_trainer.tagging.models import find
from lib_lora_trainer.ui import captions_probe, captions_tagging
from lib_lora_trainer.ui.captions_form import CaptionsTab
from lib_lora_trainer.ui.captions_work import Made, Maker, Workbench
from lib_lora_trainer.ui.page import WORKING, Page, Updates
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

SIDE = 384  # pixels of the longer side of a picture in the page


def wire(page: Page, captions: CaptionsTab, bench: Workbench, home: tag_jobs.Place) -> None:
    """Connect the events."""
    probe = captions.probe

    def found(html: str) -> Updates:
        return {bench.bench.shown: html}

    work = bench.starter(_probing(bench.place, home), "Probe", captions_probe.FIELDS, found)
    wish = [captions.tagging.taggers, captions.tagging.own, probe.words, probe.wanted, probe.sampler, *probe.options]
    probe.begin.click(work, [page.session, *wish], bench.outputs, **WORKING)


def _probing(place: Place, home: tag_jobs.Place) -> Maker:
    """Return the work that probes words with the first tagger that is chosen."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        names, own, words, wanted, sampler, *options = entered
        chosen = captions_tagging.wanted(names, own)
        tagger = find(chosen[0], home.folders) if chosen else None
        if tagger is None:
            raise ConfigError(
                "taggers: the first one is not on this machine. Choose or download one under Tag pictures."
            )
        status = place.runner.status()
        if place.searches.busy() or (status is not None and status.busy):
            raise RunConflict("A training uses the model. Wait until it has ended, or pause or stop it first.")
        cache = project_of(place.projects, session).cache
        asked = ProbeRequest(
            split(words or ""), tagger, cache / "probe", captions_probe.chosen(sampler, options), split(wanted or "")
        )
        for event in probe_jobs.probe_words(place.host, asked, control):
            yield Made(other=_shown(event, place, session)) if isinstance(event, Probed) else event

    return make


def _shown(made: Probed, place: Place, session: Session) -> str:
    project = place.projects / session.project
    addresses = {}
    for path in (path for each in made.pictures for path in each.paths):
        try:
            small = thumbnail(Path(path), project / "cache" / "thumbnails", SIDE)
        except DataError:  # taken away meanwhile
            continue
        addresses[path] = address(small, project)
    return captions_probe.probed_html(made, addresses)
