"""What a tool would do, as the page shows it: each picture before and after, with what changes in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.dataset.tools import bucket_report
from lib_lora_trainer.dataset.tools.bucket_report import BucketReport, Placed
from lib_lora_trainer.dataset.tools.mask_check import BAD
from lib_lora_trainer.dataset.tools.operations import Proposal, shown
from lib_lora_trainer.ui import findings, tools_crops, tools_pictures

PAGE = 12
FEW = 3  # messages that are shown unfolded
AFTER = 6  # pictures that one becomes, shown beside it


def relevant(draft: Draft) -> tuple[int, ...]:
    """Return the numbers of the proposals that are worth showing."""
    return tuple(number for number, proposal in enumerate(draft.proposals) if _matters(draft.tool, proposal))


def _matters(tool: str, proposal: Proposal) -> bool:
    if tool == "mask":
        return proposal.before.get("verdict") in BAD
    if tool == "crop":
        return bool(proposal.operations) or (bool(proposal.problems) and "width" in proposal.before)
    return bool(proposal.operations) and (tool != "flatten" or "folder" not in proposal.after)


def page(draft: Draft, number: int, resolution: int = 0) -> Iterator[Phase | str]:
    """Make one page of a draft: yields how far it is, and last its HTML. resolution: that crops are made for."""
    numbers = relevant(draft)[number * PAGE : (number + 1) * PAGE]
    cards = []
    for done, which in enumerate(numbers):
        yield Phase("making previews", done, len(numbers))
        proposal = draft.proposals[which]
        if draft.tool == "crop":
            cards.append(tools_crops.cropper(which, proposal, draft.root, resolution))
        else:
            cards.append(_card(draft, proposal))
    yield Phase("making previews", len(numbers), len(numbers))
    yield f'<div class="lora-trainer-pairs">{"".join(cards)}</div>' if cards else ""


def _card(draft: Draft, proposal: Proposal) -> str:
    first = tools_pictures.before(proposal.about)
    if draft.tool == "mask":
        mask = proposal.before.get("mask")
        veiled = tools_pictures.masked(proposal.about, Path(mask)) if mask else None
        after = [veiled] if veiled else []
    else:
        try:
            made = (tools_pictures.made(operation) for operation in proposal.operations[:AFTER])
            after = [image for image in made if image is not None]
            if draft.tool in ("mask-generate", "mask-import") and first is not None:
                after = [tools_pictures.veiled(first.convert("RGB"), image.convert("L")) for image in after]
        except DataError as error:
            return _figure(shown(proposal.about, draft.root), "", f"<p>{escape(str(error))}</p>")
    images = "".join(
        _image(image, "before" if not place else "after") for place, image in enumerate([first, *after]) if image
    )
    return _figure(shown(proposal.about, draft.root), images, _words(proposal, draft.root))


def _image(image: Image.Image, what: str) -> str:
    return f'<img src="{tools_pictures.data_address(image)}" alt="{what}" data-what="{what}">'


def _figure(name: str, images: str, words: str) -> str:
    return (
        f'<figure class="lora-trainer-pair"><div class="lora-trainer-pair-images">{images}</div>'
        f'<figcaption><b title="{escape(name)}">{escape(name)}</b>{words}</figcaption></figure>'
    )


def _words(proposal: Proposal, root: Path) -> str:
    first, then = described(proposal.before), described(proposal.after)
    line = f"{first} → {then}" if first and then else first or then
    moved = [operation for operation in proposal.operations if operation.to and operation.path == proposal.about]
    if moved and moved[0].to is not None:
        line = f"→ {shown(moved[0].to, root)}"
    said = "".join(f"<p>{escape(str(problem.message))} {escape(problem.fix)}</p>" for problem in proposal.problems)
    return f"<small>{escape(line)}</small>{said}"


def described(facts: Mapping[str, Any]) -> str:
    """Return facts about a picture or a mask in a few words."""
    words = []
    if "width" in facts and "height" in facts:
        words.append(f"{facts['width']}×{facts['height']}")
    if facts.get("format"):
        words.append(str(facts["format"]))
    if facts.get("frames", 1) > 1:
        words.append(f"{facts['frames']} frames")
    if facts.get("transparent"):
        words.append("transparent")
    if "upscaler" in facts:
        words.append(f"×{facts['factor']:g} by {facts['upscaler']}")
    if "verdict" in facts:
        words.append(f"mask: {facts['verdict']}")
    if facts.get("learned"):
        words.append(f"{facts['learned']:.0%} learned")
    if facts.get("holes"):
        words.append(f"{facts['holes']:.1%} holes")
    files = facts.get("files", ())
    words += [str(file) for file in files[:2]] + ([f"and {len(files) - 2} more"] if len(files) > 2 else [])
    return " · ".join(words)


def counts(draft: Draft) -> str:
    """Return how much a draft would change, as figures; of masks, how many are good, bad or missing."""
    if draft.tool == "mask":
        verdicts = Counter(str(proposal.before.get("verdict", "unreadable")) for proposal in draft.proposals)
        return findings.figures([(str(count), f"{verdict} masks") for verdict, count in verdicts.most_common()])
    changed = sum(bool(proposal.operations) for proposal in draft.proposals)
    kinds = [operation.kind for operation in draft.operations]
    written = sum(kind in ("write", "replace") for kind in kinds)
    figures = [(str(changed), f"of {len(draft.proposals)} change"), (str(written), "files written")]
    figures += [(str(kinds.count("move")), "files moved")] if "move" in kinds else []
    figures += [(str(kinds.count("remove")), "to the holding")] if "remove" in kinds else []
    return findings.figures(figures)


def told(problems: Sequence[Problem]) -> str:
    """Return problems as a list, folded when they are many and none is an error."""
    text = findings.listed(problems)
    if len(problems) <= FEW or any(problem.severity == "error" for problem in problems):
        return text
    return f"<details><summary>{len(problems)} messages</summary>{text}</details>"


def report(made: BucketReport, root: Path) -> str:
    """Return a bucket report as HTML, without its pictures."""
    most = max(made.histogram.values(), default=1)
    rows = "".join(
        f"<tr><th>{width}×{height}</th><td><div class='lora-trainer-share'><div style='width:{count / most:.0%}'></div>"
        f"</div></td><td>{count}</td></tr>"
        for (width, height), count in made.histogram.items()
    )
    lost = sum(view.cut_off for view in made.placed) / max(1, len(made.placed))
    figures = (
        (str(len(made.histogram)), "buckets"),
        (f"{lost:.1%}", "cut off on average"),
        (str(len(made.lacking)), "must be upscaled"),
    )
    lacking = _list([f"{shown(view.path, root)}: {view.factor:.2f}×" for view in made.lacking], "Must be upscaled")
    return (
        f'{findings.figures(figures)}<table class="lora-trainer-table"><thead><tr><th>Bucket</th><th></th>'
        f"<th>Pictures</th></tr></thead><tbody>{rows}</tbody></table>{lacking}{told(made.problems)}"
    )


def placed_page(made: BucketReport, root: Path, number: int) -> Iterator[Phase | str]:
    """Make one page of what training sees of each picture, what loses most first; as `page`."""
    views = by_loss(made)[number * PAGE : (number + 1) * PAGE]
    cards = []
    for done, view in enumerate(views):
        yield Phase("making previews", done, len(views))
        first = tools_pictures.before(view.path)
        bucket = view.placement.bucket
        words = f"{view.placement.original[0]}×{view.placement.original[1]} → {bucket.width}×{bucket.height}"
        words += f", {view.cut_off:.1%} cut off" + (f", enlarged {view.factor:.2f}×" if view.factor > 1 else "")
        try:
            seen = _image(Image.fromarray(bucket_report.preview(view)), "after")
        except DataError as error:
            seen, words = "", str(error)
        images = (_image(first, "before") if first else "") + seen
        cards.append(_figure(shown(view.path, root), images, f"<small>{escape(words)}</small>"))
    yield f'<div class="lora-trainer-pairs">{"".join(cards)}</div>' if cards else ""


def by_loss(made: BucketReport) -> list[Placed]:
    """Return every view of a report, what is cut off most first."""
    return sorted(made.placed, key=lambda view: -view.cut_off)


def _list(lines: Sequence[str], title: str) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details open><summary>{title}: {len(lines)}</summary><ul>{items}</ul></details>"
