"""Write captions.json: what sd-scripts makes of captions, for every case without a random draw.

Usage: python tests/reference/captions.py PATH, the path of a clone of https://github.com/kohya-ss/sd-scripts, bare or
not, that has the commit below. Needs git and the standard library: the one method is taken out of its file and run.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

COMMIT = "48d368fa557731ad0488c07304dfeba8c07910eb"
FILE = "library/train_util.py"
METHOD = "process_caption"
OUTPUT = Path(__file__).with_name("captions.json")
PLAIN = {
    "caption_prefix": None,
    "caption_suffix": None,
    "caption_dropout_rate": 0.0,
    "caption_dropout_every_n_epochs": 0,
    "caption_tag_dropout_rate": 0.0,
    "enable_wildcard": False,
    "shuffle_caption": False,
    "token_warmup_min": 1,
    "token_warmup_step": 0,
    "keep_tokens": 0,
    "keep_tokens_separator": "|||",
    "secondary_separator": ";;;",
    "caption_separator": ",",
}
TAGS = "sks, 1girl, a, b, c, d, e, f, g, h"
START = {"epoch": 1, "step": 0, "steps": 100}
# A warm-up that is over: the tags are split and joined, without a draw.
TAGWISE = {"token_warmup_step": 1}
OVER = {**START, "step": 50}


def case(name: str, caption: str, moment: dict[str, int] | None = None, **options: Any) -> dict[str, Any]:
    """Return one case; options: those of sd-scripts that are not `PLAIN`."""
    return {"name": name, "caption": caption, "moment": moment or START, "options": options}


def cases() -> list[dict[str, Any]]:
    """Return every case, without results."""
    found = [
        case("nothing", TAGS),
        case("a sentence", "A  girl,standing in the rain.\tShe smiles ."),
        case("empty", ""),
        case("prefix", TAGS, caption_prefix="photo of"),
        case("prefix with a comma", TAGS, caption_prefix="photo of sks,"),
        case("suffix", TAGS, caption_suffix="best quality"),
        case("suffix behind a comma", "sks, hat,", caption_suffix="best quality"),
        case("prefix and suffix behind commas", "sks, hat,", caption_prefix="photo,", caption_suffix="best quality"),
        case("dropped", TAGS, caption_dropout_rate=1.0),
        case("dropped with prefix and suffix", TAGS, caption_dropout_rate=1.0, caption_prefix="p", caption_suffix="s"),
        case("tags joined", "sks ,1girl,a,  b", OVER, **TAGWISE),
        case("tags joined, empty ones", "sks,, a ,", OVER, **TAGWISE),
        case("all free tags dropped", TAGS, caption_tag_dropout_rate=1.0, keep_tokens=2),
        case("keep more than there are", "a, b", caption_tag_dropout_rate=1.0, keep_tokens=5),
        case("keep none", TAGS, caption_tag_dropout_rate=1.0),
        case("separator", "sks, 1girl ||| a, b, c", caption_tag_dropout_rate=1.0, keep_tokens=1),
        case("separator with suffix", "sks ||| a, b ||| best quality, x", caption_tag_dropout_rate=1.0),
        case("separator, joined", "sks|||a, b|||best quality", OVER, **TAGWISE),
        case("separator, nothing before", "||| a, b ||| x", OVER, **TAGWISE),
        case("three separators", "sks ||| a ||| b ||| c", OVER, **TAGWISE),
        case("separator without tag options", "sks ||| a, b"),
        case("another separator", "sks @@ a, b ||| c", OVER, keep_tokens_separator="@@", **TAGWISE),
        case("no separator set", "sks ||| a, b", OVER, keep_tokens_separator="", **TAGWISE),
        case("secondary separator", "sks, red hair;;;blue eyes, hat"),
        case("secondary separator, joined", "sks, red hair;;;blue eyes, hat", OVER, **TAGWISE),
        case(
            "secondary separator is kept whole", "red hair;;;blue eyes, a", caption_tag_dropout_rate=1.0, keep_tokens=1
        ),
        case("no secondary separator set", "sks, red hair;;;blue eyes", secondary_separator=""),
        case("several lines", "first, a\nsecond, b"),
        case("wildcard of one choice", "{sks}, hat", enable_wildcard=True),
        case("escaped braces", "{{sks|a}}, {{{b}}}", enable_wildcard=True),
        case("braces without wildcards", "{a|b}, {{c}}"),
        case("unclosed brace", "{a|b, c", enable_wildcard=True),
        case("empty braces", "{}, c}", enable_wildcard=True),
    ]
    found += [
        case(f"every third epoch, {epoch}", TAGS, {**START, "epoch": epoch}, caption_dropout_every_n_epochs=3)
        for epoch in range(1, 8)
    ]
    found += [
        case(
            f"warm-up of {length:g} from {first}, step {step}",
            TAGS,
            {**START, "step": step},
            token_warmup_step=length,
            token_warmup_min=first,
            keep_tokens=2,
        )
        for length, first in ((20, 1), (20, 0), (50, 3), (20, 12), (0.2, 1), (0.25, 2))
        for step in (0, 1, 5, 10, 13, 17, 19, 20, 24, 25, 60)
    ]
    return found


def load_method(path: Path) -> Callable[..., str]:
    """Return sd-scripts' method as a function of (dataset, subset, caption)."""
    command = ["git", "-C", str(path), "show", f"{COMMIT}:{FILE}"]
    text = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    found = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == METHOD]
    if len(found) != 1:
        raise SystemExit(f"{FILE} at {COMMIT}: {METHOD} is defined {len(found)} times, not once.")
    found[0].args.args[1].annotation = None
    names: dict[str, Any] = {"math": math, "random": random, "re": re}
    exec(compile(ast.Module([found[0]], []), FILE, "exec"), names)
    return names[METHOD]


def main(path: Path) -> None:
    """Run every case and write the results."""
    method = load_method(path)
    results = []
    for each in cases():
        subset = SimpleNamespace(**{**PLAIN, **each["options"]})
        moment = each["moment"]
        dataset = SimpleNamespace(
            current_epoch=moment["epoch"],
            current_step=moment["step"],
            max_train_steps=moment["steps"],
            replacements={},
        )
        results.append({**each, "result": method(dataset, subset, each["caption"])})
    head = json.dumps({"source": "kohya-ss/sd-scripts", "commit": COMMIT, "file": FILE, "method": METHOD})
    lines = ",\n".join(json.dumps(result, ensure_ascii=False) for result in results)
    OUTPUT.write_text(f'{head[:-1]}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
