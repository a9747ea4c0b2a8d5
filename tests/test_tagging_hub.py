"""Downloads from a hub on the loopback: resumed, checked, and refused in words that help."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fake_hub import REVISION, Hub, digest, serving
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict, UserError
from lib_lora_trainer.tagging import hub
from lib_lora_trainer.tagging.models import Model

MODEL = Model("wd-toy-tagger")
MEGABYTES = np.random.default_rng(0).bytes(3_400_000)
TAGS = b"tag_id,name,category,count\n0,general,9,1\n"


@pytest.fixture
def server(monkeypatch):
    files = {f"{MODEL.repository}/model.onnx": MEGABYTES, f"{MODEL.repository}/selected_tags.csv": TAGS}
    with serving(Hub(files)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        yield running


def got(folder, control=None):
    """Download, and return the phases with what the generator returned last."""
    arriving, phases = hub.download(MODEL, folder, control or Control()), []
    while True:
        try:
            phases.append(next(arriving))
        except StopIteration as ended:
            return phases, ended.value


def test_both_files_arrive_whole_with_progress(server, tmp_path):
    folder = tmp_path / "モデル" / MODEL.name
    phases, done = got(folder)
    assert done is True
    assert (folder / "model.onnx").read_bytes() == MEGABYTES
    assert (folder / "selected_tags.csv").read_bytes() == TAGS
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "selected_tags.csv"]
    model = [(phase.done, phase.total) for phase in phases if "model.onnx" in phase.name]
    assert model == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(REVISION in path for _, path, _ in server.asked if "/cdn/" in path), "one version throughout"


def test_a_broken_connection_is_resumed_where_it_ended(server, tmp_path):
    server.drops = [len(TAGS), 1_000_000, 1_500_000]
    assert got(tmp_path)[1] is True
    assert (tmp_path / "model.onnx").read_bytes() == MEGABYTES
    spans = [span for name, span in server.downloads if name == "model.onnx"]
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) for span in spans[1:]]
    assert spans[0] == ""
    # What a broken piece held is asked for again, never more than one piece.
    assert len(starts) == 2
    assert 1_000_000 - hub.PIECE <= starts[0] <= 1_000_000
    assert starts[0] + 1_500_000 - hub.PIECE <= starts[1] <= starts[0] + 1_500_000


def test_a_server_that_gives_up_leaves_what_came_for_the_next_start(server, tmp_path):
    server.drops = [len(TAGS), 2_000_000, 0, 0, 0]
    with pytest.raises(UserError, match=r"2 MB have arrived and are kept: start again to go on"):
        got(tmp_path)
    assert not (tmp_path / "model.onnx").exists()
    before = len(server.downloads)
    assert got(tmp_path)[1] is True
    again = server.downloads[before:]
    assert [name for name, _ in again] == ["model.onnx"], "the list was complete and is not got again"
    assert int(again[0][1][6:-1]) >= 2_000_000 - hub.PIECE
    assert (tmp_path / "model.onnx").read_bytes() == MEGABYTES


def test_stopped_by_the_user_and_gone_on_with(server, tmp_path):
    control, arriving = Control(), None
    arriving = hub.download(MODEL, tmp_path, control)
    for phase in arriving:
        if "model.onnx" in phase.name and phase.done == 1:
            control.ask("stop")
    assert not (tmp_path / "model.onnx").exists()
    assert 1_000_000 <= next(tmp_path.glob("model.onnx.*.part")).stat().st_size < len(MEGABYTES)
    assert got(tmp_path)[1] is True
    assert server.downloads[-1][1].startswith("bytes=1")


def test_a_wrong_checksum_is_refused_and_named(server, tmp_path):
    server.lies["model.onnx"] = "ab" * 32
    with pytest.raises(UserError, match=f"{digest('model.onnx', MEGABYTES)}, but should have {'ab' * 32}"):
        got(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["selected_tags.csv"]


def test_a_small_file_is_checked_by_its_git_blob(server, tmp_path):
    server.lies["selected_tags.csv"] = "cd" * 20
    with pytest.raises(UserError, match=f"selected_tags.csv: arrived with the checksum {digest('x.csv', TAGS)}"):
        got(tmp_path)


def test_a_damaged_part_is_found_out_and_got_anew(server, tmp_path):
    part = tmp_path / f"model.onnx.{digest('model.onnx', MEGABYTES)[:16]}.part"
    part.write_bytes(b"\0" * 1_000_000)
    with pytest.raises(UserError, match="arrived with the checksum"):
        got(tmp_path)
    assert not part.exists()
    assert got(tmp_path)[1] is True


def test_a_part_of_an_older_version_is_not_gone_on_with(server, tmp_path):
    old = tmp_path / "model.onnx.0123456789abcdef.part"
    old.write_bytes(b"old")
    assert got(tmp_path)[1] is True
    assert not old.exists()
    assert server.downloads[-1] == ("model.onnx", "")


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.drops = [len(TAGS), 1_000_000]
    assert got(tmp_path)[1] is True
    assert (tmp_path / "model.onnx").read_bytes() == MEGABYTES


def test_what_is_there_is_checked_and_not_got_again(server, tmp_path):
    got(tmp_path)
    before = len(server.downloads)
    assert got(tmp_path)[1] is True
    assert len(server.downloads) == before
    (tmp_path / "model.onnx").write_bytes(MEGABYTES[::-1])
    got(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == MEGABYTES


def test_a_renamed_repository_is_followed(server, tmp_path):
    server.files = {path.replace("wd-toy", "wd-new"): content for path, content in server.files.items()}
    server.renamed = {MODEL.repository: MODEL.repository.replace("wd-toy", "wd-new")}
    assert got(tmp_path)[1] is True


def test_a_mirror_without_the_hubs_headers_is_asked_for_the_pointer(server, tmp_path):
    server.files[f"{MODEL.repository}/selected_tags.csv"] = TAGS
    got(tmp_path)
    (tmp_path / "model.onnx").unlink()
    server.silent = True
    with pytest.raises(UserError, match="names no checksum for selected_tags.csv.*Choose another HF_ENDPOINT"):
        got(tmp_path)
    with hub_session() as http:
        about = hub.remote.ask(http, MODEL.repository, "model.onnx")
    assert (about.size, about.digest) == (len(MEGABYTES), digest("model.onnx", MEGABYTES))


def hub_session():
    import requests

    return requests.Session()


@pytest.mark.parametrize(
    ("status", "text"), [(404, "no such file"), (403, "accepted its terms"), (401, "login"), (503, "Try again later")]
)
def test_refusals_say_what_to_do(server, tmp_path, status, text):
    server.statuses["selected_tags.csv"] = status
    with pytest.raises(UserError, match=f"status {status}.*{text}"):
        got(tmp_path)


def test_without_a_network_the_error_says_where_to_put_the_files(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=rf"cannot be reached .*HF_ENDPOINT.*into {tmp_path} yourself"):
        got(tmp_path)


def test_too_little_room_is_said_before_anything_is_got(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=17_000_000))
    with pytest.raises(UserError, match=r"2 MB more are needed for model.onnx"):
        got(tmp_path)
    assert [name for name, _ in server.downloads] == ["selected_tags.csv"]


def test_a_drive_that_fills_up_meanwhile_is_told(server, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub.os, "fsync", full)
    with pytest.raises(UserError, match="No space left.*Make room on the drive.*is kept"):
        got(tmp_path)


def test_one_download_at_a_time(server, tmp_path):
    first = hub.download(MODEL, tmp_path, Control())
    next(first)
    with pytest.raises(RunConflict, match="being downloaded already"):
        got(tmp_path)
    first.close()
    assert got(tmp_path)[1] is True
