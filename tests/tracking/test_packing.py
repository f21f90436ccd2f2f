"""Packed runs: what goes in comes out, and a hostile file is refused with nothing left behind."""

import errno
import os
import random
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import damage
from renshu.errors import CheckpointError, RenshuError, UnknownNameError
from renshu.files.checkpoint import read_header, save_tree
from renshu.tracking import Run, packing, read_episodes, read_evaluations, read_metrics
from renshu.tracking.packing import pack, unpack

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
MP4 = bytes([0, 0, 0, 24]) + b"ftypisom" + bytes(40)
AGENT = {"algorithm": "PPO", "memory": "none"}


def save(path, header=AGENT, size=4):
    save_tree(path, {"learner": np.arange(size, dtype=np.float32)}, header)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder with everything in it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "pong"
    with Run.create(path, {"algorithm": "PPO", "environment": "Pong"}) as run:
        run.log_episodes([1, 2, 3], [0, 0, 0], [1.0, 2.0, 3.0], [1, 1, 1], [0.1, 0.2, 0.3])
        run.log_metrics(3, {"loss": 0.5})
        run.log_evaluation(3, [1.0], [1])
        for file in (run.best_path, run.agent_path, run.checkpoint_path(2), run.checkpoint_path(3)):
            save(file, size=len(file.name))
    (path / "curve.png").write_bytes(PNG)
    (path / "best game.mp4").write_bytes(MP4)
    (path / "checkpoints" / "memory.safetensors").write_bytes(b"large")
    (path / "my_env.py").write_text("print('code')")
    (path / "lock").write_text("1 here")
    return path


FILES = {
    "agent.safetensors",
    "best game.mp4",
    "best.safetensors",
    "curve.png",
    "episodes.csv",
    "evaluations.csv",
    "metrics.csv",
    "settings.json",
}


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def zipped(path, entries):
    """Write a zip of what a test says: pairs of a name, or a ZipInfo, and bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries:
                archive.writestr(name, content)
    return path


def refused(file, match=None):
    """Unpack, and ask for a refusal that names the file and leaves nothing behind."""
    before = sorted(os.listdir())
    with pytest.raises(CheckpointError, match=match) as raised:
        unpack(file, "out")
    assert str(file) in str(raised.value)
    assert sorted(os.listdir()) == before


def test_a_run_comes_out_as_it_went_in(run):
    file = pack(run)
    assert file == Path("pong.renshu.zip")
    folder = unpack(file)
    assert folder == Path("pong")
    assert files_in(folder) == FILES
    assert {name: (folder / name).read_bytes() for name in FILES} == {name: (run / name).read_bytes() for name in FILES}
    assert Run.open(folder).settings == Run.open(run).settings
    assert read_header(Run.open(folder).agent_path) == AGENT
    with pytest.raises(RenshuError, match="already holds a run"):
        Run.create(folder, {})


def test_the_newest_checkpoint_goes_along_when_asked(run):
    folder = unpack(pack(run, "with.renshu.zip", checkpoints=True), "elsewhere")
    assert files_in(folder) == FILES | {"checkpoints/step_000000003.safetensors"}
    assert Run.open(folder).latest_checkpoint == folder / "checkpoints" / "step_000000003.safetensors"
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RenshuError, match="has no checkpoint that could be packed"):
        pack(run, "with.renshu.zip", checkpoints=True)


def test_a_checkpoint_whose_memory_is_beside_it_is_refused(run):
    save(run / "checkpoints" / "step_000000009.safetensors", {**AGENT, "memory": "beside"})
    with pytest.raises(CheckpointError, match=r"runs/pong/checkpoints/step_000000009.*pack without checkpoints"):
        pack("runs/pong", checkpoints=True)
    assert not Path("pong.renshu.zip").exists()


def test_the_same_run_makes_the_same_bytes(run):
    first = pack(run).read_bytes()
    shutil.copytree(run, "pong")
    for path in Path("pong").iterdir():
        os.utime(path, (0, 0))
    other = pack("pong", "other.renshu.zip")
    assert other.read_bytes() == first
    assert {info.date_time[0] for info in zipfile.ZipFile(other).infolist()} == {1980}


def test_a_run_that_trains_is_packed_to_its_last_whole_line(run):
    with open(run / "episodes.csv", "a") as file:
        file.write("4,0,1.0,1,0")
    with open(run / "metrics.csv", "w") as file:
        file.write("st")
    folder = unpack(pack(run))
    assert (folder / "episodes.csv").read_text().endswith("3,0,3.0,1,0.3\n")
    assert read_episodes(folder)["step"].tolist() == [1, 2, 3]
    assert read_metrics(folder)["step"].size == 0
    assert read_evaluations(folder)["mean"].tolist() == [1.0]


def test_a_new_run_without_a_row_is_packed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run.create("new", {}).close()
    assert files_in(unpack(pack("new"), "out")) == {"settings.json"}


def test_links_are_not_followed(run, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    (run / "link.png").symlink_to(secret)
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").symlink_to(run / "episodes.csv")
    with pytest.warns(UserWarning, match="is a link") as found:
        file = pack(run)
    assert len(found) == 2
    assert set(zipfile.ZipFile(file).namelist()) == FILES - {"metrics.csv"}
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        packing._not_through_links(str(run / "link.png"), os.O_RDONLY)
    shutil.move(run / "checkpoints", tmp_path / "moved")
    (run / "checkpoints").symlink_to(tmp_path / "moved")
    with pytest.warns(UserWarning, match="is a link"), pytest.raises(RenshuError, match="no checkpoint"):
        pack(run, checkpoints=True)


def test_settings_that_are_a_link_are_refused(run, tmp_path):
    (run / "settings.json").rename(tmp_path / "real.json")
    (run / "settings.json").symlink_to(tmp_path / "real.json")
    with pytest.warns(UserWarning, match="is a link"), pytest.raises(RenshuError, match="is no plain file"):
        pack(run)
    assert not Path("pong.renshu.zip").exists()


def test_a_picture_with_an_odd_name_is_left_out_with_a_warning(run):
    for name in ("Bild ü.png", "con.png", "A.GIF"):
        (run / name).write_bytes(PNG)
    with pytest.warns(UserWarning, match="rename it") as found:
        file = pack(run)
    assert len(found) == 3
    assert set(zipfile.ZipFile(file).namelist()) == FILES


def test_two_names_that_are_one_elsewhere_are_refused(run):
    (run / "CURVE.png").write_bytes(PNG)
    with pytest.raises(RenshuError, match=r"CURVE\.png and curve\.png .* rename one of them"):
        pack(run)


def test_no_run_is_packed_into_what_is_none(run):
    with pytest.raises(UnknownNameError, match="Did you mean pong"):
        pack("runs/ping")
    with pytest.raises(RenshuError, match=r"must end in \.renshu\.zip"):
        pack(run, "pong.zip")
    (run / "episodes.csv").write_text("step,env,return,length,seconds\n1,2\n")
    with pytest.raises(CheckpointError, match=r"line 2 of runs/pong/episodes\.csv"):
        pack("runs/pong")
    assert os.listdir() == ["runs"]


def test_a_file_that_others_made_is_not_taken_for_an_agent(run):
    save(run / "best.safetensors", {"rows": 3})
    with pytest.raises(CheckpointError, match=r"best\.safetensors holds no agent"):
        pack(run)


def test_nothing_is_written_over(run):
    file = pack(run)
    Path("pong").mkdir()
    with pytest.raises(RenshuError, match=r"pong exists already.*name another folder"):
        unpack(file)
    assert list(Path("pong").iterdir()) == []
    Path("gone").symlink_to("nowhere")
    with pytest.raises(RenshuError, match="gone exists already"):
        unpack(file, "gone")


def test_a_place_that_cannot_be_written_is_named(run):
    file = pack(run)
    with pytest.raises(RenshuError, match=r"cannot write runs/pong/lock/a\.renshu\.zip"):
        pack(run, "runs/pong/lock/a.renshu.zip")
    with pytest.raises(RenshuError, match=r"cannot write missing/out: No such file"):
        unpack(file, "missing/out")


NAMES = [
    "/etc/passwd.png",
    "../a.png",
    "checkpoints/../../a.png",
    "C:a.png",
    "C:/a.png",
    "checkpoints\\a.png",
    "..\\a.png",
    "a/b.png",
    "a\n.png",
    "a\x1b[2J.png",
    "a.png\0.py",
    "a.png\n",
    ".hidden.png",
    "nul.png",
    "Settings.json",
    "env.py",
    "notes.csv",
    "checkpoints/",
    "checkpoints/memory.safetensors",
    "events.out.tfevents.1.host",
    "ü.png",
    "x" * 300 + ".png",
    ".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_run_has_is_refused(run, name):
    # ZipInfo would clean the name itself.
    info = zipfile.ZipInfo("a")
    info.filename = info.orig_filename = name
    zipped("bad.renshu.zip", [("settings.json", b"{}"), (info, PNG)])
    with pytest.raises(CheckpointError) as raised:
        unpack("bad.renshu.zip", "out")
    assert "packed run has only" in str(raised.value)
    assert str(raised.value).isprintable()
    assert sorted(os.listdir()) == ["bad.renshu.zip", "runs"]


def info_of(name, **fields):
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([("curve.png", PNG)], "holds no settings.json"),
        ([("settings.json", b"{}"), ("settings.json", b"{}")], "settings.json twice"),
        ([("settings.json", b"{}"), ("a.png", PNG), ("A.png", PNG)], "A.png twice"),
        ([(info_of("settings.json", external_attr=0o120777 << 16), b"/etc/passwd")], "is a link"),
        ([(info_of("settings.json", compress_type=zipfile.ZIP_LZMA), b"{}")], "compressed by method 14"),
        ([("settings.json", b"{}"), *((f"{i}.png", PNG) for i in range(300))], "holds 301 files, more than 200"),
        ([("settings.json", b"{}"), *((f"{i}.png", PNG) for i in range(3000))], "lists more than 200 files"),
        ([("settings.json", b"[1]")], r"bad\.renshu\.zip/settings\.json holds a list"),
        ([("settings.json", b"[" * 10**6)], r"cannot read bad\.renshu\.zip/settings\.json"),
        ([("settings.json", b'{"algorithm": 3}')], r'"algorithm" is 3, expected a text'),
        ([("settings.json", b"{}"), ("episodes.csv", b"a,b\n1,2\n")], r"line 1 of bad\.renshu\.zip/episodes\.csv"),
        ([("settings.json", b"{}"), ("metrics.csv", b"step,loss\n1,x\n")], r"line 2 of bad\.renshu\.zip/metrics\.csv"),
        ([("settings.json", b"{}"), ("metrics.csv", b"step\n" + b"1" * 70_000 + b"\n")], "line 2 .* too long"),
        ([("settings.json", b"{}"), ("a.png", b"GIF89a" + bytes(20))], r"is no \.png file: it begins with b'GIF89a"),
        ([("settings.json", b"{}"), ("a.gif", PNG)], r"is no \.gif file"),
        ([("settings.json", b"{}"), ("a.mp4", b"<html><script>")], r"is no \.mp4 file"),
        ([("settings.json", b"{}"), ("a.mp4", b"")], r"is no \.mp4 file"),
        ([("settings.json", b"{}"), ("best.safetensors", b"\x80\x04pickle of code")], "a Python pickle"),
        ([("settings.json", b"{}"), ("agent.safetensors", b"PK\x03\x04" + bytes(40))], "not a safetensors file"),
    ],
)
def test_contents_that_no_run_has_are_refused(run, entries, match):
    refused(zipped("bad.renshu.zip", entries), match)


def test_a_bomb_is_refused_while_it_is_read(run, monkeypatch):
    bomb = bytes(packing.MOST_SETTINGS + 1)
    with zipfile.ZipFile("bad.renshu.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("settings.json", bomb)
    assert Path("bad.renshu.zip").stat().st_size < 3000
    refused("bad.renshu.zip", r"settings\.json is too large: it may have 1 MiB")
    monkeypatch.setattr(packing, "MOST_BYTES", 5000)
    pictures = [(f"{i}.png", PNG + bytes(2000)) for i in range(3)]
    refused(zipped("bad.renshu.zip", [("settings.json", b"{}"), *pictures]), "2.png is too large")


def test_a_header_that_lies_about_its_size_is_refused(run):
    content = PNG + bytes(5000)
    zipped("bad.renshu.zip", [("settings.json", b"{}"), (info_of("a.png", compress_type=8), content)])
    data = Path("bad.renshu.zip").read_bytes()
    Path("bad.renshu.zip").write_bytes(data.replace(struct.pack("<I", len(content)), struct.pack("<I", 30)))
    refused("bad.renshu.zip", "Bad CRC-32")


def test_a_run_that_is_too_large_is_not_packed(run, monkeypatch):
    monkeypatch.setattr(packing, "MOST_BYTES", 900)
    with pytest.raises(CheckpointError, match=r"runs/pong/.* is too large.*Move what is large out"):
        pack("runs/pong")
    monkeypatch.undo()
    monkeypatch.setattr(packing, "MOST_FILES", 3)
    with pytest.raises(RenshuError, match="has 8 files to pack, at most 3"):
        pack(run)


def test_an_encrypted_file_is_refused(run):
    zipped("bad.renshu.zip", [("settings.json", b"{}")])
    content = bytearray(Path("bad.renshu.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    Path("bad.renshu.zip").write_bytes(content)
    refused("bad.renshu.zip", r"settings\.json in it is encrypted")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: b"", "does not begin as a zip"),
        (lambda data: b"#!/bin/sh\n" + data, "does not begin as a zip"),
        (lambda data: data[:4], "is cut short"),
        (lambda data: data[:-1], "cut short, or something was added"),
        (lambda data: data[: len(data) // 2], "cut short, or something was added"),
        (lambda data: data + b"more", "cut short, or something was added"),
        (lambda data: data[:-2] + b"\1\0", "cut short, or something was added"),
        (lambda data: data[:-22] + b"PK\6\7" + bytes(16) + data[-22:], "cut short, or something was added"),
        (lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], "zlib|Bad CRC|error"),
    ],
)
def test_a_damaged_file_is_refused(run, change, match):
    file = pack(run)
    file.write_bytes(change(file.read_bytes()))
    refused(file, match)


def test_what_is_no_file_is_refused(run):
    refused("missing.renshu.zip", "No such file")
    refused("runs", "cannot read runs")


def test_a_packed_file_cut_at_any_place_is_refused(run):
    data = pack(run).read_bytes()
    for end in range(0, len(data), 97):
        Path("cut.renshu.zip").write_bytes(data[:end])
        refused("cut.renshu.zip")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_bytes_are_refused_or_come_out_as_they_went_in(run, seed):
    file = pack(run)
    whole, damaged = file.read_bytes(), Path("damaged.renshu.zip")
    damaged.write_bytes(damage.bytes_of(whole, random.Random(seed)))
    try:
        folder = unpack(damaged, "out")
    except CheckpointError as error:
        message = str(error)
    else:
        message = f"{damaged} was unpacked"
        assert all((folder / name).read_bytes() == (run / name).read_bytes() for name in files_in(folder))
        shutil.rmtree(folder)
    assert "damaged.renshu.zip" in message
    assert sorted(os.listdir()) == ["damaged.renshu.zip", "pong.renshu.zip", "runs"]
