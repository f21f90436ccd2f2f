import numpy as np
import pytest
from PIL import Image

from renshu.tracking.pictures import ENOUGH, SUFFIXES, suffix_of


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_pictures_are_told_by_their_first_bytes(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    assert suffix_of(path.read_bytes()[:ENOUGH]) == suffix


def test_videos_and_other_files():
    assert suffix_of(b"\x00\x00\x00\x20ftypisom") == ".mp4"
    assert {".png", ".gif", ".mp4"} == set(SUFFIXES)
    for other in (b"", b"<svg xmlns=", b"ftypisom", b"GIF"):
        assert suffix_of(other) is None
