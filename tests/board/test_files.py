import os

import pytest

from renshu.board.files import media, videos

PNG, GIF, MP4 = b"\x89PNG\r\n\x1a\n....", b"GIF89a......", b"\x00\x00\x00\x20ftypisom"


def test_pictures_and_videos_are_listed_videos_first(tmp_path):
    for name, content in {"b.png": PNG, "a.gif": GIF, "walk.mp4": MP4, "curve.png": PNG, "notes.txt": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    assert videos(tmp_path) == ["walk.mp4", "a.gif", "b.png"]
    assert videos(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "sub/secret.png", "settings.json", "", "..", "a\0.png"]
)
def test_no_other_file_is_handed_out(tmp_path, name):
    run = tmp_path / "run"
    (run / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.png", run / "sub" / "secret.png"):
        path.write_bytes(PNG)
    (run / "settings.json").write_bytes(b"{}")
    assert media(run, name) is None


def test_a_file_that_only_has_the_name_of_a_video_is_not_handed_out(tmp_path):
    for name, content in {"page.mp4": b"<html><script>1</script>", "empty.png": b"", "other.gif": PNG}.items():
        (tmp_path / name).write_bytes(content)
        assert media(tmp_path, name) is None


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_links_and_pipes_are_not_handed_out(tmp_path):
    (tmp_path / "real.png").write_bytes(PNG)
    run = tmp_path / "run"
    run.mkdir()
    (run / "link.png").symlink_to(tmp_path / "real.png")
    os.mkfifo(run / "pipe.png")
    assert media(run, "link.png") is None
    assert media(run, "pipe.png") is None
