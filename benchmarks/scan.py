"""Measures the scan of a folder against a plain loop over Pillow's headers, and the search for near-duplicates.

    python benchmarks/scan.py [--pictures 10000] [--side 512] [--whole] [--duplicates] [--parts]

Makes a folder of pictures (JPEG and PNG in turn, with caption files) and reads it in processes of their own, by turns:
a loop that opens each picture with Pillow and asks for size, mode and EXIF orientation; the same loop that also reads
the caption file; the scan; and a second scan in the same process. All are repeated by turns. The machine may be
shared: of seconds the fastest round counts, and of ratios, each taken within one round, the median. Peak memory is the
process's own. `--whole` also measures the scan that decodes every picture, against a loop that does; `--duplicates` the
search for near-duplicates, in stages; `--parts` what the parts of a scan take.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from lib_lora_trainer.config.data import DataConfig, SourceConfig

ORIENTATION = 0x0112
AGAIN = "scan again, nothing changed"


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make(folder: Path, pictures: int, side: int) -> None:
    """Write pictures of different content, JPEG and PNG in turn, in folders of 500, each with a caption file.

    As pictures come: the JPEGs with EXIF data and a colour profile, the PNGs with the parameters of their generation.
    """
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif.update({0x010F: "Camera", 0x0110: "Model", ORIENTATION: 1, 0x0132: "2024:01:01 00:00:00"})
    text.add_text("parameters", "1girl, solo, " * 40 + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photograph = {"quality": 90, "exif": exif, "icc_profile": profile}
    rng = np.random.default_rng(1)
    for number in range(pictures):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        image = coarse.resize((side, side), Image.Resampling.BICUBIC)
        path = folder / f"{1 + number // 500}_part" / f"{number:06d}.{'png' if number % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"compress_level": 1, "pnginfo": text} if number % 2 else photograph))
        path.with_suffix(".txt").write_text(f"1girl, solo, number {number}", encoding="utf-8")


def pillow_loop(folder: Path, captions: bool, decode: bool) -> int:
    """Open every picture below a folder as anybody would."""
    count = 0
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            if not name.endswith((".png", ".jpg")):
                continue
            with Image.open(f"{parent}/{name}") as image:
                image.size, image.mode, image.format  # noqa: B018 what a scan needs to know
                if decode:
                    image.load()
                elif image.format != "PNG" or "exif" in image.info:  # else Pillow would decode it
                    image.getexif().get(ORIENTATION, 1)
            if captions:
                Path(parent, name).with_suffix(".txt").read_text(encoding="utf-8").strip()
            count += 1
    return count


def scan_folder(folder: Path, depth: Literal["headers", "whole"]) -> int:
    """Scan a folder as the product does."""
    from lib_lora_trainer.dataset.scan import scan

    data = DataConfig(sources=(SourceConfig(str(folder)),), resolution=64)
    found = scan(data, ("sks",), lambda _done, _whole: None, depth, name_copies=depth == "headers")
    return len(found.items)


def search(folder: Path) -> int:
    """Look for near-duplicates, and say how long each stage took."""
    from lib_lora_trainer.dataset import duplicates

    begun: dict[str, list[float]] = {}

    def report(what: str, _done: int, _whole: int) -> None:
        begun.setdefault(what, [time.perf_counter(), 0])[1] = time.perf_counter()

    found = duplicates.clusters(sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")), report)
    for what, (start, end) in begun.items():
        sys.stderr.write(f"  {what}: {end - start:.1f} s\n")
    return len(found.clusters)


WAYS = {
    "Pillow headers": lambda folder: pillow_loop(folder, captions=False, decode=False),
    "Pillow headers and captions": lambda folder: pillow_loop(folder, captions=True, decode=False),
    "scan of headers": lambda folder: scan_folder(folder, "headers"),
    AGAIN: lambda folder: scan_folder(folder, "headers"),
    "Pillow decoding": lambda folder: pillow_loop(folder, captions=True, decode=True),
    "scan of everything": lambda folder: scan_folder(folder, "whole"),
    "near-duplicates": search,
}


def measured(way: str, folder: Path) -> dict[str, float]:
    """Return seconds and peak MB of one way in a process of its own; imports do not count as time."""
    command = [sys.executable, __file__, "--run", way, "--folder", str(folder)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


def run(way: str, folder: Path) -> None:
    """Measure one way in this process."""
    import lib_lora_trainer.dataset.scan  # noqa: F401 imported before the clock starts

    Image.init()
    if way == AGAIN:
        WAYS[way](folder)
    # What the imports left behind is not looked through again, whichever way makes objects enough to begin that.
    gc.collect()
    gc.freeze()
    start, used = time.perf_counter(), time.process_time()
    count = WAYS[way](folder)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(json.dumps({"count": count, "seconds": seconds, "used": used, "peak": peak}))


def parts(folder: Path, repeats: int) -> None:
    """Print what the parts of a scan of headers take, in processor time, the least of several rounds."""
    from lib_lora_trainer.dataset import caption_files, endings, folders, formats, readings

    source = SourceConfig(str(folder))
    paths = [path for each in folders.list_source(source, "", (".txt",)).folders for path in each.pictures]
    captions = [path.with_suffix(".txt") for path in paths]
    heads = [endings.read_ends(path).head for path in paths]

    def opened(head: bytes) -> None:
        image = Image.open(io.BytesIO(head), formats=("PNG", "JPEG"))
        formats.orientation(image)

    def fresh(work: Callable[[], object]) -> Callable[[], object]:
        def forgetful() -> object:
            readings._readings = readings.Readings()
            return work()

        return forgetful

    def each(work: Callable[..., object], things: Iterable[object]) -> Callable[[], object]:
        return lambda: [None for thing in things if work(thing) is work]

    works = {
        "bare loop of Pillow headers": lambda: pillow_loop(folder, captions=False, decode=False),
        "scan of headers": fresh(lambda: scan_folder(folder, "headers")),
        "listing the folders": lambda: folders.list_source(source, "", (".txt",)),
        "reading the pictures": fresh(lambda: readings.read_each(paths, "headers", None)),
        "- both ends of the file, from the system": each(endings.read_ends, paths),
        "- Pillow: headers and EXIF, from memory": each(opened, heads),
        "reading the caption files": each(caption_files.read_caption, captions),
    }
    least = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            gc.collect()
            gc.freeze()
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    say("| part | µs a picture |\n| --- | --- |")
    for name, seconds in least.items():
        say(f"| {name} | {seconds / len(paths) * 1e6:.1f} |")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--duplicates", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="an existing folder to read instead of a generated one")
    options = parser.parse_args()
    if options.run:
        run(options.run, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not options.folder:
            make(folder, options.pictures, options.side)
        compare(options, folder)
        if options.parts:
            parts(folder, options.repeats)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run the ways by turns and print a row for each."""
    groups = [["Pillow headers", "Pillow headers and captions", "scan of headers", AGAIN]]
    if options.whole:
        groups.append(["Pillow decoding", "scan of everything"])
    if options.duplicates:
        groups.append(["near-duplicates"])
    say("| way | pictures | seconds | processor seconds | peak MB | time of the first | processor time of the first |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    for group in groups:
        measured(group[0], folder)  # fills the system's cache of files
        repeats = options.repeats if group is groups[0] else 1
        rounds = [{way: measured(way, folder) for way in group} for _ in range(repeats)]
        for way in group:
            row = {key: min(each[way][key] for each in rounds) for key in ("count", "seconds", "used", "peak")}
            times = " | ".join(
                f"× {statistics.median(each[way][key] / each[group[0]][key] for each in rounds):.2f}"
                for key in ("seconds", "used")
            )
            say(f"| {way} | {row['count']} | {row['seconds']:.2f} | {row['used']:.2f} | {row['peak']:.0f} | {times} |")


if __name__ == "__main__":
    main()
