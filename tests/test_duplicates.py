"""Near-duplicates are found, variants are kept, and of several files the best is proposed."""

import sys
from collections import Counter
from itertools import product
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

import likeness_cases as cases
from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.dataset import alignment, candidates, duplicates, keeping, looks
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.likeness import Judge

pytestmark = pytest.mark.filterwarnings("error")


def save(folder, **images):
    paths = {}
    for name, image in images.items():
        paths[name] = folder / f"{name}.png"
        image.save(paths[name], compress_level=1)
    return paths


def groups(found):
    """Return the files of each picture by name, and apart from that nothing."""
    return sorted(sorted(path.stem for path in each.paths) for cluster in found.clusters for each in cluster.copies)


def likeness(one, two):
    ways = candidates.find([looks.look_at(one), looks.look_at(two)], lambda _done, _whole: None)
    return Judge().compare(looks.look_at(one), looks.look_at(two), ways[0]) if ways else None


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    truth = cases.make(tmp_path_factory.mktemp("known"), motifs=10)
    return truth, duplicates.clusters(list(truth.pictures))


def test_precision_and_recall_on_a_set_of_which_all_is_known(known, capsys):
    truth, found = known
    proposed = set()
    for cluster in found.clusters:
        for each in cluster.copies:
            paths = sorted(each.paths)
            proposed |= {(a, b) for a, b in truth.pairs() if a in paths and b in paths}
    hits = len(proposed & truth.same)
    precision, recall = hits / len(proposed), hits / len(truth.same)
    with capsys.disabled():
        said = (
            f"{len(truth.pictures)} pictures, {len(truth.same)} pairs: precision {precision:.3f}, recall {recall:.3f}"
        )
        sys.stdout.write(f"\n{said}\n")
    assert len(truth.same) > 80
    assert precision >= 0.98
    assert recall >= 0.95
    assert found.problems == ()


def test_variants_are_shown_as_such_and_kept(known):
    truth, found = known
    spare = {path for cluster in found.clusters for path in cluster.spare}
    for motif in {motif for motif, _ in truth.pictures.values()}:
        for version in {version for name, version in truth.pictures.values() if name == motif}:
            files = {path for path, known_as in truth.pictures.items() if known_as == (motif, version)}
            assert files - spare, (motif, version)  # at least one file of each variant stays
    told = {tuple(sorted((p.one, p.two))) for c in found.clusters for p in c.pairs if p.variant}
    assert not told & truth.same
    assert len(told - truth.variants) <= 0.05 * len(told)  # figures that happen to share most of their traits
    assert len(told & truth.variants) >= 0.9 * len(truth.variants)
    by_path = {path: number for number, cluster in enumerate(found.clusters) for path in cluster.paths}
    together = sum(by_path.get(a, -1) == by_path.get(b, -2) for a, b in truth.variants)
    assert together >= 0.95 * len(truth.variants)


def test_every_file_is_in_one_place_and_each_pair_has_its_figure(known):
    truth, found = known
    counted = Counter(path for cluster in found.clusters for path in cluster.paths)
    assert set(counted.values()) == {1} and set(counted) <= set(truth.pictures)
    for cluster in found.clusters:
        assert len(cluster.paths) > 1 and cluster.pairs
        assert len(cluster.paths) == len(cluster.copies) + len(cluster.spare)
        for pair in cluster.pairs:
            assert {pair.one, pair.two} <= set(cluster.paths)
            assert 0 <= pair.likeness.similarity <= 1 and 0 <= pair.likeness.changed <= 1
    similar = [p.likeness.similarity for c in found.clusters for p in c.pairs if not p.variant]
    assert min(similar) > 0.9


@pytest.mark.parametrize("way", list(cases.copies(Image.new("RGB", (8, 8)))))
@pytest.mark.parametrize("kind", ["figure", "photograph"])
def test_each_way_to_copy_a_picture_is_seen_through(tmp_path, kind, way):
    image = cases.figure(31) if kind == "figure" else cases.photograph(31)
    paths = save(tmp_path, original=image, copy=cases.copies(image)[way])
    found = likeness(*paths.values())
    assert found is not None and found.kind == "same"
    assert found.similarity > 0.97 and found.changed < 1e-3
    assert found.mirrored == ("mirrored" in way)


@pytest.mark.parametrize("change", ["expression", "eyes", "outfit"])
@pytest.mark.parametrize("quality", [None, 40])
def test_changes_stand_out_from_noise(tmp_path, change, quality):
    image = cases.variants(31)[change]
    image = image if quality is None else cases.recompressed(cases.resized(image, 2 / 3), quality)
    paths = save(tmp_path, original=cases.figure(31), variant=image)
    found = likeness(*paths.values())
    assert found is not None and found.kind == "variant" and not found.mirrored
    assert 0 < found.changed < 0.4
    assert (found.changed > 0.05) == (change == "outfit")


def test_a_small_figure_with_another_expression_is_a_variant(tmp_path):
    def scene(**changes):
        ground = cases.photograph(5, (1024, 768))
        ground.paste(cases.figure(5, 1, **changes).resize((170, 170), Image.Resampling.LANCZOS), (300, 200))
        return ground

    paths = save(tmp_path, a=scene(expression="smile"), b=scene(expression="open mouth"))
    found = likeness(*paths.values())
    assert found is not None and found.kind == "variant" and found.changed < 0.01


def test_pictures_with_much_in_common_are_not_the_same(tmp_path):
    """The same traits drawn anew, in another place and size; the same ground with another figure."""
    pairs = {
        "drawn anew": (
            cases.figure(8),
            cases.world.draw(cases.world.sample_figure(cases.Random(8)), 99).resize((384, 384)),
        ),
        "another photograph": (cases.photograph(8), cases.photograph(9)),
        "upside down": (cases.photograph(8), cases.photograph(8).transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        "a part": (cases.photograph(8), cases.cropped(cases.photograph(8), (0.3, 0.3, 0.0, 0.0))),
    }
    for name, (one, two) in pairs.items():
        paths = save(tmp_path, one=one, two=two)
        found = likeness(*paths.values())
        assert found is None or found.kind == "variant", name


def test_a_small_copy_joins_the_variant_it_is_made_of(tmp_path):
    """At 48 pixels both variants look the same as the small copy; they must not become one through it."""
    image, other = cases.figure(12), cases.variants(12)["eyes"]
    paths = save(tmp_path, a=image, b=other, c=cases.resized(image, 1 / 8), d=cases.resized(other, 1 / 8))
    found = duplicates.clusters(list(paths.values()))
    (cluster,) = found.clusters
    by_name = {path.stem: number for number, each in enumerate(cluster.copies) for path in each.paths}
    assert by_name["a"] != by_name["b"]
    assert not {"a", "b"} & {path.stem for path in cluster.spare}


def test_equal_files_are_found_whatever_they_show(tmp_path):
    blank = Image.new("RGB", (64, 64), (255, 255, 255))
    save(
        tmp_path,
        a=blank,
        b=blank,
        c=Image.new("RGB", (64, 64)),
        dot=Image.new("RGB", (2, 2)),
        e=Image.new("L", (64, 64)),
    )
    (tmp_path / "dot again.png").write_bytes((tmp_path / "dot.png").read_bytes())
    found = duplicates.clusters(sorted(tmp_path.glob("*.png")))
    assert groups(found) == [["a", "b"], ["dot", "dot again"]]
    assert all(pair.likeness.similarity == 1 for cluster in found.clusters for pair in cluster.pairs)


def test_items_are_taken_as_well_and_nobody_is_touched(tmp_path):
    image = cases.photograph(3)
    paths = save(tmp_path, a=image, b=cases.recompressed(image, 50))
    items = [Item(path, "set", 1, *image.size, "x", None) for path in paths.values()]
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    found = duplicates.clusters([*items, items[0]])
    assert found == duplicates.clusters(list(paths.values()))
    assert groups(found) == [["a", "b"]]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_nothing_to_find(tmp_path):
    assert duplicates.clusters([]) == duplicates.Found((), ())
    paths = save(tmp_path, a=cases.photograph(1), b=cases.photograph(2), c=Image.new("RGB", (1, 4000)))
    assert duplicates.clusters(list(paths.values())) == duplicates.Found((), ())


def test_files_that_cannot_be_read_are_named(tmp_path):
    paths = save(tmp_path, a=cases.photograph(1), b=cases.resized(cases.photograph(1), 0.5))
    (tmp_path / "cut.png").write_bytes(paths["a"].read_bytes()[:5000])
    found = duplicates.clusters([*paths.values(), tmp_path / "cut.png", tmp_path / "gone.png"])
    assert groups(found) == [["a", "b"]]
    assert sorted(Path(problem.where).name for problem in found.problems) == ["cut.png", "gone.png"]


def test_progress_can_end_the_search(tmp_path):
    class CalledOff(Exception):
        pass

    image = cases.photograph(1)
    paths = list(save(tmp_path, a=image, b=cases.resized(image, 0.5), c=cases.photograph(2)).values())
    told = []
    duplicates.clusters(paths, lambda what, done, whole: told.append((what, done, whole)))
    assert all(done <= whole for _, done, whole in told)
    for number in range(len(told)):
        calls = []

        def progress(*call, number=number, calls=calls):
            calls.append(call)
            if len(calls) > number:
                raise CalledOff

        with pytest.raises(CalledOff):
            duplicates.clusters(paths, progress)


def test_without_imagehash_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(looks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install ImageHash"):
        duplicates.clusters([])


def test_the_hash_of_the_whole_picture_is_that_of_imagehash(tmp_path):
    path = save(tmp_path, a=cases.photograph(6, (64, 64)))["a"]
    with Image.open(path) as image:
        across, down = imagehash.dhash(image, looks.CELLS), imagehash.dhash_vertical(image, looks.CELLS)
    bits = np.unpackbits(looks.look_at(path).hashes[0])
    assert (bits == np.concatenate([across.hash.ravel(), down.hash.ravel()])).all()


def test_every_crop_is_near_one_of_the_windows(tmp_path):
    """Up to 5 % of each side, wherever between the windows; other pictures are not."""
    for image in (cases.figure(17), cases.photograph(17)):
        whole = looks.look_at(save(tmp_path, a=image)["a"])
        other = looks.look_at(save(tmp_path, b=cases.photograph(18))["b"])
        for sides in product((0, 0.025, 0.05), (0, 0.04), (0, 0.025, 0.05), (0, 0.03)):
            look = looks.look_at(save(tmp_path, c=cases.cropped(image, sides))["c"])
            assert candidates.find([whole, look], lambda _done, _whole: None), sides
        assert not candidates.find([whole, other], lambda _done, _whole: None)


@pytest.mark.parametrize("sides", [(0.05, 0.0, 0.0, 0.05), (0.02, 0.05, 0.04, 0.0), (0.0, 0.0, 0.0, 0.0)])
def test_a_crop_is_laid_where_it_was_cut_out(sides):
    image = cases.photograph(21, (960, 960)).convert("L")
    left, top, right, bottom = sides
    part = cases.cropped(image, sides)
    grey = [np.asarray(each.resize((96, 96), Image.Resampling.LANCZOS), np.float32) for each in (image, part)]
    found = alignment.refine(grey[0], grey[1], alignment.Alignment((1.0, 0.0), (1.0, 0.0)))
    (box, whole) = found.boxes
    assert box == pytest.approx((left, top, 1 - right, 1 - bottom), abs=0.002)
    assert whole == pytest.approx((0, 0, 1, 1), abs=0.002)
    found = alignment.refine(grey[1], grey[0], alignment.Alignment((1.0, 0.0), (1.0, 0.0)))
    assert found.boxes[1] == pytest.approx((left, top, 1 - right, 1 - bottom), abs=0.002)


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ("half", "192×144 instead of 384×288"),
        ("quality 30", "more compression artefacts"),
        ("quality 60", "more compression artefacts"),
        ("cropped", "346×260 instead of 384×288"),
        ("enlarged", "only enlarged"),
        ("all of it", "243×183 instead of 384×288"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_better_file_is_kept_with_the_reason(tmp_path, worse, why, order):
    image = cases.photograph(40)
    paths = save(tmp_path, original=image, worse=cases.copies(image)[worse])
    best = keeping.choose(list(paths.values())[::order])
    assert best.keep == paths["original"]
    assert best.others == ((paths["worse"], why),)
    assert best.reason


def test_a_blurred_file_is_less_sharp_and_the_length_counts_where_it_costs_quality(tmp_path):
    image = cases.photograph(41)
    paths = save(tmp_path, sharp=image, soft=image.filter(ImageFilter.GaussianBlur(1.5)))
    assert keeping.choose(list(paths.values())).others == ((paths["soft"], "less sharp"),)
    image.save(tmp_path / "small.png", compress_level=9)
    best = keeping.choose([tmp_path / "small.png", paths["sharp"]])
    assert (best.keep, best.others) == (paths["sharp"], ((tmp_path / "small.png", "equal"),))
    image.save(tmp_path / "fine.jpg", quality=96)
    image.save(tmp_path / "coarse.jpg", quality=95)
    best = keeping.choose([tmp_path / "coarse.jpg", tmp_path / "fine.jpg"])
    assert (best.keep, best.others) == (tmp_path / "fine.jpg", ((tmp_path / "coarse.jpg", "compressed more"),))
    with pytest.raises(DataError, match="gone"):
        keeping.choose([paths["sharp"], tmp_path / "gone.png"])


def test_blockiness_follows_the_quality_and_not_the_place_of_the_grid():
    image = cases.photograph(42).convert("L")
    found = [keeping.blockiness(np.asarray(image, np.float32))]
    for quality in (90, 60, 30, 10):
        compressed = cases.recompressed(image, quality).convert("L")
        found.append(keeping.blockiness(np.asarray(compressed, np.float32)))
        moved = keeping.blockiness(np.asarray(compressed.crop((3, 5, 384, 288)), np.float32))
        assert moved == pytest.approx(found[-1], rel=0.25, abs=0.05)
    assert found == sorted(found) and found[0] < 0.08 < 0.3 < found[-1]


def test_large_crowds_of_one_picture_are_one_group(tmp_path):
    """More than `duplicates.CROWD` files: not every pair is compared, and the result is the same each time."""
    image = cases.photograph(50, (128, 96))
    for quality in range(40, 40 + 2 * duplicates.CROWD):
        cases.recompressed(image, quality).save(tmp_path / f"{quality}.png")
    paths = sorted(tmp_path.iterdir())
    found = duplicates.clusters(paths)
    assert groups(found) == [sorted(path.stem for path in paths)]
    assert found == duplicates.clusters(paths)
