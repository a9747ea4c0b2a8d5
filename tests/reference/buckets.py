"""Write buckets.json: what sd-scripts makes of resolutions and picture sizes.

    python tests/reference/buckets.py <a checkout of kohya-ss/sd-scripts at 48d368f> > tests/reference/buckets.json

Only `make_bucket_resolutions` and `BucketManager` are taken from there and run, so nothing of its requirements but
numpy is needed. tests/test_buckets.py compares.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

COMMIT = "48d368f"
RESOLUTIONS = {512: (256, 1024, 64), 768: (256, 1024, 64), 1024: (512, 2048, 64), 640: (320, 1280, 32)}
FIXED = (
    (512, 512), (768, 768), (1024, 1024), (1, 1), (7, 900), (1000, 1000), (1000, 667), (667, 1000), (320, 704),
    (1920, 1080), (1080, 1920), (3000, 70), (64, 64), (63, 64), (65, 64), (576, 448), (1152, 896), (832, 1216),
    (500, 500), (511, 513), (4000, 3000), (6000, 4000), (2048, 2048), (850, 480), (300, 200), (800, 1000),
)  # fmt: skip


def sizes() -> list[tuple[int, int]]:
    """Return about 200 picture sizes: those above, and others drawn from a fixed seed."""
    draws = random.Random(20240601)
    drawn = []
    for _ in range(180):
        longer = draws.choice((draws.randint(32, 700), draws.randint(400, 2000), draws.randint(1000, 6000)))
        shorter = max(1, round(longer / draws.uniform(1.0, draws.choice((1.5, 2.0, 6.0)))))
        drawn.append(draws.choice(((longer, shorter), (shorter, longer))))
    return [*FIXED, *drawn]


def taken(checkout: Path) -> dict[str, Any]:
    """Return the two definitions, run in a namespace of their own."""
    wanted = {"library/model_util.py": "make_bucket_resolutions", "library/train_util.py": "BucketManager"}
    names: dict[str, Any] = {"math": math, "np": np, "random": random}
    for file, name in wanted.items():
        tree = ast.parse((checkout / file).read_text(encoding="utf-8"))
        found = [node for node in tree.body if getattr(node, "name", "") == name]
        module = ast.Module([*ast.parse("from typing import *").body, *found], type_ignores=[])
        exec(compile(module, file, "exec"), names)
        names["model_util"] = SimpleNamespace(make_bucket_resolutions=names["make_bucket_resolutions"])
    return names


def main() -> None:
    """Print the reference as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    names = taken(parser.parse_args().checkout)
    pictures = sizes()
    cases = []
    for resolution, (minimum, maximum, step) in RESOLUTIONS.items():
        case: dict[str, Any] = {"resolution": resolution, "minimum": minimum, "maximum": maximum, "step": step}
        for no_upscale in (False, True):
            manager = names["BucketManager"](no_upscale, (resolution, resolution), minimum, maximum, step)
            manager.make_buckets()
            case["buckets"] = manager.predefined_resos
            chosen = [[*size, *bucket, *scaled] for size in pictures for bucket, scaled, _ in [select(manager, size)]]
            case["no_upscale" if no_upscale else "upscale"] = chosen
        cases.append(case)
    text = json.dumps({"source": f"kohya-ss/sd-scripts {COMMIT}", "cases": cases}, separators=(",", ":"))
    sys.stdout.write(text.replace('{"resolution"', '\n{"resolution"') + "\n")


def select(manager: Any, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int], float]:
    """Return sd-scripts' bucket and scaled size; (0, 0) twice where it fails on an assertion or divides by zero."""
    try:
        return manager.select_bucket(*size)
    except (AssertionError, ZeroDivisionError):
        return (0, 0), (0, 0), 0.0


if __name__ == "__main__":
    main()
