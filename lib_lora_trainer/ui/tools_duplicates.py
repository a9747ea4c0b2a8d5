"""Near-duplicates side by side: how alike they are, which one stays and why, and a switch for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

from lib_lora_trainer.app import duplicate_jobs
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.dataset.duplicates import Cluster, Copies, Found
from lib_lora_trainer.dataset.tools.operations import shown
from lib_lora_trainer.ui import findings, tools_pictures

PAGE = 8


def counts(found: Found) -> str:
    """Return how many there are, as figures."""
    variants = sum(len(cluster.copies) - 1 for cluster in found.clusters)
    spare = len(duplicate_jobs.spare(found))
    pairs = ((str(len(found.clusters)), "groups"), (str(spare), "to the holding"), (str(variants), "variants, kept"))
    return findings.figures(pairs)


def page(found: Found, root: Path, number: int) -> Iterator[Phase | str]:
    """Make one page of clusters: yields how far it is, and last its HTML."""
    first = number * PAGE
    clusters = found.clusters[first : first + PAGE]
    made = []
    for done, cluster in enumerate(clusters):
        yield Phase("making previews", done, len(clusters))
        made.append(_cluster(cluster, first + done, root))
    yield "".join(made)


def rejected(text: str, found: Found) -> tuple[Path, ...]:
    """Return which pictures go: the spare ones, changed by the switches. Raises ConfigError for nonsense.

    text: JSON of {"cluster.picture": kept or not} of the switches that were touched; "" for none.
    """
    try:
        touched = json.loads(text) if text.strip() else {}
        kept: dict[Path, bool] = {}
        for name, keep in touched.items():
            cluster, picture = map(int, name.split("."))
            if min(cluster, picture) < 0:
                raise IndexError(name)
            kept[found.clusters[cluster].paths[picture]] = bool(keep)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError("switches: what the page sent is no list of switches. Press Preview again.") from error
    gone = {path for path in duplicate_jobs.spare(found) if not kept.get(path, False)}
    return tuple(sorted(gone | {path for path, keep in kept.items() if not keep}))


def _cluster(cluster: Cluster, number: int, root: Path) -> str:
    cards, place = "", 0
    for copies in cluster.copies:
        for path in copies.paths:
            cards += _card(cluster, copies, path, f"{number}.{place}", root)
            place += 1
    words = f"{len(cluster.paths)} files"
    if len(cluster.copies) > 1:
        words += f", {len(cluster.copies)} variants"
    return (
        f'<section class="lora-trainer-cluster"><h4>{words}</h4><div class="lora-trainer-pairs">{cards}</div></section>'
    )


def _card(cluster: Cluster, copies: Copies, path: Path, token: str, root: Path) -> str:
    image = tools_pictures.before(path)
    name = escape(shown(path, root))
    kept = path == copies.keep
    size = f"{image.width}×{image.height}" if image else ""
    picture = f'<img src="{tools_pictures.data_address(image)}" alt="{name}">' if image else ""
    is_variant = kept and copies is not cluster.copies[0]
    reason = copies.reason if kept else dict(copies.spare)[path]
    best = cluster.copies[0].keep if kept else copies.keep
    badge = "variant" if is_variant else "best" if kept and copies.spare else ""
    label = f'<span class="lora-trainer-badge">{badge}</span> ' if badge else ""
    lines = [size, _alike(cluster, path, best) if path != best else "", reason]
    words = " · ".join(escape(line) for line in lines if line)
    checked = " checked" if kept else ""
    return (
        f'<figure class="lora-trainer-pair lora-trainer-copy" data-kept="{int(kept)}">'
        f'<div class="lora-trainer-pair-images">{picture}</div><figcaption><b title="{name}">{name}</b>'
        f'<small>{label}{words}</small><label class="lora-trainer-switch"><input type="checkbox" '
        f'data-copy="{token}" aria-label="keep {name}"{checked}> keep</label></figcaption></figure>'
    )


def _alike(cluster: Cluster, path: Path, other: Path) -> str:
    pair = duplicate_jobs.likeness(cluster, path, other)
    if pair is None:
        return ""
    alike = pair.likeness
    words = f"{alike.similarity:.1%} alike"
    if alike.changed and pair.variant:
        words += f", {alike.changed:.1%} changed"
    return words + (", mirrored" if alike.mirrored else "")
