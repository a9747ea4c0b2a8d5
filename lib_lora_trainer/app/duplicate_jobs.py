"""Near-duplicates in a dataset: looked for with progress, and what goes moved to the holding, from where it can come back.

`look` ends with what was found and changes nothing. `draft` makes a Draft of the pictures that are not kept, which
`dataset_tools.apply` carries out through the journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.app.threaded import Report, Stopped, reported
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event, Finished
from lib_lora_trainer.dataset import duplicates
from lib_lora_trainer.dataset.duplicates import Cluster, Copies, Found, Pair
from lib_lora_trainer.dataset.tools import selection
from lib_lora_trainer.dataset.tools.members import gather
from lib_lora_trainer.dataset.tools.operations import shown


def look(request: Request, control: Control) -> Iterator[Event | Found]:
    """Look for near-duplicates among a source's pictures; the last value is a Found, or Finished when stopped.

    Raises UserError without ImageHash, DataError when there are no pictures.
    """
    yield from dataset_tools.recover(Path(request.data.sources[request.index].path))
    paths = [member.path for member in dataset_tools.gathered(request).members]

    def work(report: Report) -> Found:
        return duplicates.clusters(paths, report)

    try:
        found = yield from reported(work, control, "duplicates")
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    yield found


def spare(found: Found) -> tuple[Path, ...]:
    """Return the pictures that may go: every file but the best of each picture and of each variant."""
    return tuple(path for cluster in found.clusters for path in cluster.spare)


def draft(request: Request, rejected: Collection[Path]) -> Draft:
    """Return the removal of some pictures with their captions and masks. Raises ProblemsFound naming what is none."""
    dataset = gather(request.data, request.index)
    proposals = tuple(selection.remove_all(dataset, sorted(rejected)))
    return Draft("duplicates", f"Put near-duplicates aside: {len(proposals)}", dataset.root, proposals)


def facts(found: Found, root: Path) -> list[dict[str, Any]]:
    """Return the clusters in JSON's types, paths as people read them; root: the dataset's folder."""
    return [
        {
            "copies": [_copies(each, root) for each in cluster.copies],
            "pairs": [_pair(pair, root) for pair in cluster.pairs],
        }
        for cluster in found.clusters
    ]


def likeness(cluster: Cluster, path: Path, keep: Path) -> Pair | None:
    """Return the pair of two pictures of a cluster, else the most similar one that the first is part of."""
    own = [pair for pair in cluster.pairs if path in (pair.one, pair.two)]
    direct = [pair for pair in own if keep in (pair.one, pair.two)]
    return max(direct or own, key=lambda pair: pair.likeness.similarity, default=None)


def _copies(copies: Copies, root: Path) -> dict[str, Any]:
    return {
        "keep": shown(copies.keep, root),
        "reason": copies.reason,
        "spare": [{"file": shown(path, root), "reason": reason} for path, reason in copies.spare],
    }


def _pair(pair: Pair, root: Path) -> dict[str, Any]:
    return {
        "one": shown(pair.one, root),
        "two": shown(pair.two, root),
        "kind": pair.likeness.kind,
        "similarity": round(pair.likeness.similarity, 4),
        "changed": round(pair.likeness.changed, 4),
        "mirrored": pair.likeness.mirrored,
    }
