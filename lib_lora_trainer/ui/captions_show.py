"""What would be done to captions, as the page shows it: each caption before and after, with marks on what changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.captions import diffs
from lib_lora_trainer.captions.diffs import Change
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.dataset.tools.operations import Proposal, shown
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.pictures import address

PAGE, SIDE = 12, 256
FEW = 3  # messages that are shown unfolded
_COUNTED = 40  # tags in the list of what comes and goes


def relevant(draft: Draft) -> tuple[Proposal, ...]:
    """Return the proposals that change something."""
    return tuple(proposal for proposal in draft.proposals if proposal.operations)


def head(draft: Draft) -> str:
    """Return how much would change, as figures, with the tags that come and go, and what has to be known."""
    changed = [Change(each.about, _caption(each.before), _caption(each.after)) for each in relevant(draft)]
    counts = diffs.tag_counts(changed)
    come, gone = ([(each.tag, getattr(each, which)) for each in counts] for which in ("added", "removed"))
    figures = (
        (str(len(changed)), f"of {len(draft.proposals)} captions change"),
        (str(sum(number for _, number in come)), "tags added"),
        (str(sum(number for _, number in gone)), "tags removed"),
    )
    return findings.figures(figures) + _counted("Added", come) + _counted("Removed", gone) + _told(draft)


def _counted(title: str, counts: Sequence[tuple[str, int]]) -> str:
    tags = sorted((each for each in counts if each[1]), key=lambda each: (-each[1], each[0]))
    if not tags:
        return ""
    chips = "".join(f"<li><span>{escape(tag)}</span> <b>{number}</b></li>" for tag, number in tags[:_COUNTED])
    rest = f"<li>… and {len(tags) - _COUNTED} more</li>" if len(tags) > _COUNTED else ""
    return f'<details class="lora-trainer-come"><summary>{title}: {len(tags)}</summary><ul>{chips}{rest}</ul></details>'


def _told(draft: Draft) -> str:
    text = findings.listed(draft.problems)
    if len(draft.problems) <= FEW or any(problem.severity == "error" for problem in draft.problems):
        return text
    return f"<details><summary>{len(draft.problems)} messages</summary>{text}</details>"


def page(draft: Draft, number: int, project: Path) -> Iterator[Phase | str]:
    """Make one page of a draft: yields how far it is, and last its HTML. project: the folder that keeps thumbnails."""
    proposals = relevant(draft)[number * PAGE : (number + 1) * PAGE]
    yield Phase("making previews", 0, len(proposals))
    small = thumbnails([proposal.about for proposal in proposals], project / "cache" / "thumbnails", SIDE)
    cards = ""
    for done, (proposal, image) in enumerate(zip(proposals, small, strict=True), start=1):
        source = "" if isinstance(image, DataError) else f'<img src="{address(image, project)}" alt="" loading="lazy">'
        cards += _card(proposal, source, draft.root)
        yield Phase("making previews", done, len(proposals))
    yield f'<ul class="lora-trainer-diffs">{cards}</ul>' if cards else ""


def _card(proposal: Proposal, image: str, root: Path) -> str:
    before, after = _caption(proposal.before), _caption(proposal.after)
    said = "".join(f"<p>{escape(problem.message)} {escape(problem.fix)}</p>" for problem in proposal.problems)
    return (
        f'<li>{image}<div><b>{escape(shown(proposal.about, root))}</b><p class="lora-trainer-diff">'
        f"{marked(before, after)}</p>{said}</div></li>"
    )


def marked(before: str, after: str) -> str:
    """Return a caption as it becomes, with marks: what goes as <del>, what comes as <ins>."""
    kinds = {"same": "span", "removed": "del", "added": "ins"}
    pieces = (f"<{kinds[span.kind]}>{_text(span.text)}</{kinds[span.kind]}>" for span in diffs.spans(before, after))
    return "".join(pieces) or "<em>empty</em>"


def _text(piece: str) -> str:
    return "<br>".join(escape(printable(line)) for line in piece.split("\n"))


def _caption(facts: Mapping[str, Any]) -> str:
    return str(facts.get("caption", ""))
