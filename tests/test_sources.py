"""What sources say about their pictures: repeats and `multiply.txt`, regularization, levels of folders, resolutions."""

from dataclasses import replace

import pytest

from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.dataset.buckets import place
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.views import histogram, views
from test_scan import concepts, look, picture, told


def test_multiply_files_multiply_their_own_folder_alone(tmp_path):
    for name in ("a.png", "10_x/b.png", "10_x/deep/c.png", "17_characters~fanart~Name/d.png", "half/e.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "10_x" / "multiply.txt").write_text("2.5\n", encoding="utf-8-sig")
    (tmp_path / "set" / "17_characters~fanart~Name" / "Multiply.TXT").write_text("0.1")
    (tmp_path / "set" / "half" / "multiply.txt").write_text("0.5")
    found = look(tmp_path / "set")
    assert concepts(found) == [
        ("set", 1, 1, 1),
        ("set/10_x", 1, 25, 25),
        ("set/10_x/deep", 1, 10, 10),  # the number in the name reaches inside, the file does not
        ("set/17_characters~fanart~Name", 1, 1.7, 1.7),
        ("set/half", 1, 0.5, 0.5),
    ]
    assert isinstance(found.concepts[1].repeats, int)
    assert found.problems == ()  # no caption without a picture either
    source = SourceConfig(str(tmp_path / "set"), repeats=4)
    fixed = scan(DataConfig(sources=(source,), resolution=64), ())
    assert [concept.repeats for concept in fixed.concepts] == [4, 10, 4, 0.4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("twice", "'twice' is not a number."),
        ("", "'' is not a number."),
        ("2,5", "'2,5' is not a number."),
        ("-1", "-1 is out of range."),
        ("nan", "nan is out of range."),
        ("1e9", "1e9 is out of range."),
        ("0.0001", "0.0001 is too small."),
    ],
)
def test_a_multiply_file_that_makes_no_sense_is_an_error(tmp_path, text, message):
    picture(tmp_path / "a.png")
    (tmp_path / "multiply.txt").write_text(text)
    found = look(tmp_path)
    assert told(found) == [(str(tmp_path / "multiply.txt"), message)]
    assert found.problems[0].severity == "error" and found.problems[0].fix.startswith("Write ")


def test_a_multiply_file_may_switch_a_folder_off_and_may_be_a_caption(tmp_path):
    picture(tmp_path / "off" / "a.png")
    (tmp_path / "off" / "multiply.txt").write_text("0")
    picture(tmp_path / "on" / "multiply.png", caption="a big pair of rabbits")
    found = look(tmp_path)
    assert [item.caption for item in found.items] == ["a big pair of rabbits"]
    assert told(found) == [(str(tmp_path / "off"), "its pictures (1) are not used: its multiply.txt says 0.")]


def test_each_item_knows_its_source(tmp_path):
    picture(tmp_path / "b" / "1.png")
    picture(tmp_path / "a" / "2.png", caption=None)
    sources = (SourceConfig(str(tmp_path / "b")), SourceConfig(str(tmp_path / "a"), regularization=True))
    found = scan(DataConfig(sources=sources, resolution=64), ("sks",))
    assert [(item.path.name, item.source, item.regularization) for item in found.items] == [
        ("2.png", 1, True),
        ("1.png", 0, False),
    ]
    assert [(concept.name, concept.source, concept.regularization) for concept in found.concepts] == [
        ("a", 1, True),
        ("b", 0, False),
    ]


def test_regularization_images_never_fall_back_to_the_triggers(tmp_path):
    picture(tmp_path / "train" / "a.png")
    picture(tmp_path / "reg" / "3_1girl, solo" / "b.png", caption=None)
    picture(tmp_path / "reg" / "own" / "c.png", caption=None)
    sources = (SourceConfig(str(tmp_path / "train")), SourceConfig(str(tmp_path / "reg"), regularization=True))
    found = scan(DataConfig(sources=sources, resolution=64), ("sks",))
    assert [item.caption for item in found.items] == ["1girl, solo", "own", "sks, hat"]
    assert [text for _, text in told(found, "warning")] == [
        "1 of 2 pictures have no caption file and are trained with '1girl, solo': b.png.",
        "1 of 2 pictures have no caption file and are trained with 'own': c.png.",
    ]


def test_nothing_but_regularization_images_is_an_error(tmp_path):
    picture(tmp_path / "a.png")
    found = scan(DataConfig(sources=(SourceConfig(str(tmp_path), regularization=True),), resolution=64), ())
    message = "all pictures are regularization images, so there is nothing to learn."
    assert told(found, "error") == [("data.sources", message)]


def test_a_leaf_folder_is_recognized_and_those_beside_it_are_named(tmp_path):
    for name in ("10_sks", "5_hat", "3_coat", "plain"):
        picture(tmp_path / name / "a.png")
    found = look(tmp_path / "10_sks")
    beside = "those beside it are not used: 3_coat, 5_hat."
    ((severity, problem),) = [(problem.severity, problem) for problem in found.problems]
    assert severity == "warning"
    assert problem.message == f"10_sks is itself a folder named N_name; its pictures count × 10, and {beside}"
    assert problem.fix == f"Choose {tmp_path} to use all of them."
    both = look(tmp_path / "10_sks", tmp_path / "5_hat", tmp_path / "3_coat")
    assert {problem.severity for problem in both.problems} == {"note"}
    assert look(tmp_path).problems == ()


def test_a_folder_too_high_is_recognized(tmp_path):
    picture(tmp_path / "img" / "10_sks" / "a.png")
    picture(tmp_path / "img" / "5_hat" / "b.png")
    found = look(tmp_path)
    text = "the folders named N_name lie one level deeper, in img; all of them are used."
    assert [(problem.severity, problem.message) for problem in found.problems] == [("note", text)]
    picture(tmp_path / "reg" / "1_girl" / "c.png")
    (problem,) = look(tmp_path).problems
    assert problem.severity == "warning"
    assert problem.message == text.replace("img;", "img, reg;").replace("used.", "used, reg like any other.")
    assert "add reg as a source of regularization images" in problem.fix
    picture(tmp_path / "loose.png")  # somebody's own arrangement
    assert look(tmp_path).problems == ()


def test_lines_are_kept_apart_for_wildcards_alone(tmp_path):
    picture(tmp_path / "a.png", caption="one {a|b}\n\n two \n")
    assert look(tmp_path).items[0].caption == "one {a|b} two"
    assert look(tmp_path, caption=CaptionConfig(wildcards=True)).items[0].caption == "one {a|b}\ntwo"


def test_captions_of_pictures_named_after_their_faces(tmp_path):
    picture(tmp_path / "girl_10_20_8_9.png", caption=None)
    (tmp_path / "girl.txt").write_text("a girl")
    picture(tmp_path / "boy_10_20_8_9.png", caption="own")
    (tmp_path / "boy.txt").write_text("a boy")
    found = look(tmp_path)
    assert [item.caption for item in found.items] == ["own", "a girl"]
    assert found.problems == ()


def test_faces_out_of_range_are_noted(tmp_path):
    picture(tmp_path / "in_10_20_8_9.png")
    picture(tmp_path / "out_10_64_8_9.png")
    picture(tmp_path / "plain.png")
    found = look(tmp_path, face_crop_minimum=2.0, face_crop_maximum=1.0)
    assert told(found) == [
        (
            "data.face_crop_minimum",
            "2 of 3 pictures have no face in their names and are cropped as usual: out_10_64_8_9.png, plain.png.",
        ),
        ("data.face_crop_maximum", "1 is smaller than data.face_crop_minimum, 2."),
    ]
    assert look(tmp_path, face_crop_maximum=1.0).problems == ()


def test_too_few_pixels_are_told_for_each_resolution_and_its_pictures(tmp_path):
    picture(tmp_path / "a" / "small.png", (70, 70))
    picture(tmp_path / "a" / "large.png", (200, 200))
    picture(tmp_path / "b" / "other.png", (100, 100))
    sources = (SourceConfig(str(tmp_path / "a")), SourceConfig(str(tmp_path / "b"), resolution=128))
    found = scan(DataConfig(sources=sources, resolution=64, more_resolutions=(96,), bucket_maximum=512), ())
    assert told(found) == [
        ("data.more_resolutions[0]", "1 of 2 pictures have fewer pixels than 96×96 and will be enlarged: small.png."),
        (
            "data.sources[1].resolution",
            "1 of 1 pictures have fewer pixels than 128×128 and will be enlarged: other.png.",
        ),
    ]


def test_views_are_every_picture_at_every_resolution(tmp_path):
    picture(tmp_path / "a" / "1.png", (300, 200))
    picture(tmp_path / "a" / "2.png", (128, 128))
    picture(tmp_path / "b" / "3.png", (64, 64))
    sources = (
        SourceConfig(str(tmp_path / "a"), repeats=2),
        SourceConfig(str(tmp_path / "b"), resolution=64, flip=True),
    )
    data = DataConfig(sources=sources, resolution=128, more_resolutions=(256, 128), bucket_minimum=64)
    found = scan(data, ())
    seen = views(found, data)
    assert [(view.item, view.repeats, view.mirrored) for view in seen] == [
        (0, 2, False),
        (0, 2, False),
        (1, 2, False),
        (1, 2, False),
        (2, 1, True),
    ]
    assert [view.placement for view in seen] == [
        place(*size, data, resolution)
        for size, resolution in (
            ((300, 200), 128),
            ((300, 200), 256),
            ((128, 128), 128),
            ((128, 128), 256),
            ((64, 64), 64),
        )
    ]
    # 1.5 : 1 at 128 is 128×64 or 128×128 with steps of 64; at 256, 320×192.
    assert histogram(seen) == {(64, 64): 1, (128, 128): 2, (256, 256): 1, (320, 192): 1}
    plain = views(scan(replace(data, flip=True), ()), replace(data, flip=True))
    assert [view.mirrored for view in plain] == [True] * 5
    off = replace(data, flip=True, sources=(replace(sources[0], flip=False), sources[1]))
    assert [view.mirrored for view in views(found, off)] == [False] * 4 + [True]
