"""What happens on: searching a learning rate, calling that off, putting the suggestion into the settings."""

from __future__ import annotations

from typing import Any

from lib_lora_trainer.base.errors import ConfigError, RunConflict
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui import rate_form, watch, whole_actions
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of


def wire(place: Place, page: Page) -> None:
    """Connect the events."""
    rate = page.train.rate

    def begin(session: Session, *entered: Any) -> Updates:
        place.gate()
        session = pages.read_form(place, session, entered)
        project = project_of(place.projects, session)
        status = place.runner.status()
        if status is not None and status.busy:
            raise RunConflict("A training uses the model. Wait until it has ended, or pause or stop it first.")
        place.searches.start(place.host, project, session.config)
        return {page.session: session, **watch.searched(place, page, session)}

    def cancel(session: Session) -> Updates:
        place.searches.cancel()
        return watch.searched(place, page, session)

    def use(session: Session) -> Updates:
        found = rate_form.found_in(place.searches.events(session.project))
        searched = place.searches.config(session.project)
        if found is None or searched is None or not found.learning_rate:
            raise ConfigError("learning rate: nothing was found yet. Press “Find learning rate” first.")
        config = session.config
        for path, rate in rate_form.rates(searched, found.learning_rate).items():
            config = put(config, path, rate)
        return whole_actions.put(place, page, session, config, "Learning rate found:")

    told_too = {page.bar.notice, page.styles}
    rate.begin.click(
        told(page, begin), [page.session, *page.form], rate.watched | {page.session, page.seen_rate} | told_too, **QUIET
    )
    rate.stop.click(told(page, cancel), [page.session], rate.watched | {page.seen_rate} | told_too, **QUIET)
    rate.use.click(told(page, use), [page.session], page.everything, **QUIET)
