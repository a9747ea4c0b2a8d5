"""Models open on what really starts, take batches as they declare them, and are gone when closed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.tagging import session, wd14
from lib_lora_trainer.tagging.labels import Label, read_labels
from lib_lora_trainer.tagging.models import in_folder
from onnx_models import means, tagger

COLOURS = [(255, 0, 0), (0, 51, 0), (0, 0, 102), (51, 102, 255), (10, 20, 30)]
PICTURES = [Image.new("RGB", (20, 10), colour) for colour in COLOURS]


def expected(pictures):
    """Return each picture's mean blue, green and red as shares, white beside them counted."""
    return np.array([[(value / 255 + 1) / 2 for value in picture.getpixel((0, 0))[::-1]] for picture in pictures])


@pytest.mark.parametrize("batch", ["N", 1, 2, 4])
def test_pictures_are_tagged_in_batches_of_the_models_own_size(tmp_path, batch):
    loaded = wd14.load(tagger(tmp_path, (batch, 8, 8, 3)))
    assert loaded.session.layout.batch == (0 if batch == "N" else batch)
    assert np.allclose(wd14.probabilities(loaded, PICTURES, 3), expected(PICTURES), atol=0.01)
    assert wd14.probabilities(loaded, []).shape == (0, 3)


@pytest.mark.parametrize("kind", ["float", "float16", "uint8"])
def test_elements_are_what_the_model_takes(tmp_path, kind):
    loaded = wd14.load(tagger(tmp_path, ("N", 8, 8, 3), kind))
    assert np.allclose(wd14.probabilities(loaded, PICTURES), expected(PICTURES), atol=0.01)


def test_planes_and_logits_are_understood(tmp_path):
    loaded = wd14.load(tagger(tmp_path, ("N", 3, 8, 8), nodes=(("Mul", 4.0),)))
    logits = 4 * (2 * expected(PICTURES) - 1)
    assert np.allclose(wd14.probabilities(loaded, PICTURES), 1 / (1 + np.exp(-logits)), atol=0.01)


def test_a_session_is_gone_when_its_block_ends(tmp_path):
    found = in_folder(tagger(tmp_path))
    with wd14.opened(found, "cpu") as running:
        inner = weakref.ref(running.session._inner)
        assert inner() is not None
    gc.collect()
    assert inner() is None
    with pytest.raises(ValueError, match="closed"):
        running.session.run(np.zeros((1, 8, 8, 3), np.float32))


@pytest.mark.filterwarnings("ignore:Specified provider")  # onnxruntime's own words for what is simulated here
def test_a_provider_that_does_not_start_is_told_and_the_cpu_used(tmp_path, monkeypatch):
    model = means(tmp_path / "model.onnx", ("N", 8, 8, 3))
    if set(onnxruntime.get_available_providers()) & session.ON_GPU:
        pytest.skip("has a GPU provider")
    plain = session.start(model)
    assert plain.provider == session.CPU and not plain.on_gpu and not session.gpu_offered("auto")
    assert plain.note.severity == "note" and "no provider for a GPU" in plain.note.text
    assert session.start(model, "cpu").note is None
    # The build says it has CUDA, as onnxruntime-gpu does on a machine without its libraries.
    offered = ["CUDAExecutionProvider", "DmlExecutionProvider", session.CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    assert session.gpu_offered("auto") and not session.gpu_offered("cpu")
    fallen = session.start(model)
    assert fallen.provider == session.CPU and not fallen.on_gpu
    assert fallen.note.severity == "warning"
    assert "runs on the CPU" in fallen.note.text and "CUDA (" in fallen.note.text and "DirectML (" in fallen.note.text


def test_a_provider_that_fails_while_it_works_says_what_to_do(tmp_path):
    running = session.start(means(tmp_path / "model.onnx", ("N", 8, 8, 3)), "cpu")
    with pytest.raises(UserError, match=r"could not tag 2 pictures at once: .*smaller batch"):
        running.run(np.zeros((2, 9, 9, 3), np.float32))


def test_values_that_are_no_numbers_are_not_taken(tmp_path):
    model = means(tmp_path / "model.onnx", ("N", 8, 8, 3), nodes=(("Sub", 300.0), ("Sqrt", None)))
    running = session.start(model, "cpu")
    with pytest.raises(UserError, match="no numbers on the CPU"):
        running.run(np.zeros((1, 8, 8, 3), np.float32))


def test_files_that_do_not_fit_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"model\.onnx: there is no such file"):
        wd14.load(tmp_path / "nothing")
    folder = tagger(tmp_path / "a", rows=("0,general,9,1", "1,hat,0,1"))
    with pytest.raises(DataError, match="3 outputs and the list 2 tags"):
        wd14.load(folder)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot be opened as an ONNX model"):
        wd14.load(folder)
    means(folder / "model.onnx", ("N", 8, 6, 3))
    with pytest.raises(DataError, match="no square pictures"):
        wd14.load(folder)
    with pytest.raises(DataError, match="no such file"):
        session.start(tmp_path / "absent.onnx", "cpu")


def test_labels_have_spaces_counts_and_keep_their_faces(tmp_path):
    path = tmp_path / "selected_tags.csv"
    rows = "tag_id,name,category,count\n9,general,9,5\n1,long_hair,0,77\n2,^_^,0,3\n3,(o)_(o),0,\n4,rem_(re:zero),4,9\n"
    path.write_text(rows, encoding="utf-8-sig")
    assert read_labels(path) == (
        Label("general", 9, 5), Label("long hair", 0, 77), Label("^_^", 0, 3), Label("(o)_(o)", 0, 0),
        Label("rem (re:zero)", 4, 9),
    )  # fmt: skip
    for bad in ("name\nhat\n", "category,name\nx,hat\n", "category,name\n0\n"):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(DataError, match="columns name and category"):
            read_labels(path)
