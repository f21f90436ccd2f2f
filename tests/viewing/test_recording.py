import re
import subprocess
import sys
import weakref

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from renshu.errors import RenshuError
from renshu.viewing.recording import GIF_WIDTH, annotate, episode_frames, render_fps, write_video


def solid(count, height=32, width=48):
    """Frames of one colour each: the red channel grows from frame to frame."""
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0] = 40 + 150 * index // max(1, count - 1)
        yield frame


def read_mp4(path):
    """Width, height, frames per second and frames of an H.264 video in yuv420p."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", f"file:{path}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    found = re.search(rb"Video: h264.* yuv420p.* (\d+)x(\d+).* ([\d.]+) fps", done.stderr)
    assert found, done.stderr
    width, height = int(found[1]), int(found[2])
    return width, height, float(found[3]), np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def read_gif(path):
    with Image.open(path) as image:
        frames = [(frame.info["duration"], np.array(frame.convert("RGB"))) for frame in ImageSequence.Iterator(image)]
        return image.info["loop"], frames


class Line(gym.Env):
    """Rewards 1 a step, ends after `length` steps, draws into one array: the row of the step is white."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=3, picture="array"):
        self.length, self.picture, self.seeds = length, picture, []
        self.canvas = np.zeros((8, 8, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.t = 0
        return self.np_random.random(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return self.np_random.random(2, np.float32), 1.0, self.t == self.length, False, {}

    def render(self):
        if self.picture != "array":
            return {"none": None, "ansi": "text", "float": np.zeros((8, 8, 3)), "gray": np.zeros((8, 8), np.uint8)}[
                self.picture
            ]
        self.canvas[:] = 0
        self.canvas[self.t] = 255
        return self.canvas


def test_mp4_has_every_frame_at_the_right_speed(tmp_path):
    path = tmp_path / "new" / "a:b.mp4"
    write_video(path, solid(10), fps=20)
    *format, frames = read_mp4(path)
    assert format == [48, 32, 20]
    np.testing.assert_allclose(frames[..., 0].mean((1, 2)), [frame[0, 0, 0] for frame in solid(10)], atol=8)


def test_mp4_pads_odd_sizes(tmp_path):
    write_video(tmp_path / "v.mp4", solid(2, 33, 47), fps=10)
    width, height, _, frames = read_mp4(tmp_path / "v.mp4")
    assert (width, height) == (48, 34)
    assert abs(int(frames[0, -1, -1, 0]) - 40) < 8


def test_mp4_does_not_keep_frames(tmp_path):
    made: list[weakref.ref] = []

    def frames():
        for frame in solid(30):
            made.append(weakref.ref(frame))
            yield frame
            assert sum(ref() is not None for ref in made) <= 3

    write_video(tmp_path / "v.mp4", frames(), fps=30)
    assert len(read_mp4(tmp_path / "v.mp4")[3]) == len(made) == 30


@pytest.mark.parametrize(("fps", "count"), [(30, 30), (10, 10), (50, 50), (29.97, 60), (100, 100), (60, 60)])
def test_gif_plays_at_the_right_speed_and_loops(fps, count, tmp_path):
    write_video(tmp_path / "v.gif", solid(count), fps)
    loop, frames = read_gif(tmp_path / "v.gif")
    durations = [duration for duration, _ in frames]
    assert loop == 0
    assert len(frames) == min(count, round(50 * count / fps))
    assert sum(durations) == pytest.approx(1000 * count / fps, abs=20)
    assert min(durations) >= 20


def test_gif_keeps_colours_and_equal_frames(tmp_path):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, :, 1] = np.arange(60) * 4
    frame[3, 5] = (255, 0, 255)
    write_video(tmp_path / "v.gif", [frame] * 4, fps=10)
    _, frames = read_gif(tmp_path / "v.gif")
    assert sum(duration for duration, _ in frames) == 400
    np.testing.assert_array_equal(frames[0][1], frame)


def test_gif_is_scaled_down(tmp_path):
    write_video(tmp_path / "v.gif", solid(2, 300, 1000), fps=10)
    assert read_gif(tmp_path / "v.gif")[1][1][1].shape == (144, GIF_WIDTH, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize(
    ("frames", "match"),
    [
        ([], "not one frame"),
        ([np.zeros((4, 4, 3))], r"float64\[4, 4, 3\]"),
        ([np.zeros((4, 4), np.uint8)], r"uint8\[4, 4\]"),
        ([np.zeros((4, 4, 4), np.uint8)], r"uint8\[4, 4, 4\]"),
        ([np.zeros((0, 4, 3), np.uint8)], r"uint8\[0, 4, 3\]"),
        ([[[1, 2, 3]]], "a frame is a list"),
        ([*solid(2), *solid(1, 10, 10)], "frame 2 is 10 x 10 pixels, those before it are 48 x 32"),
    ],
)
def test_bad_frames_leave_the_old_file(suffix, frames, match, tmp_path):
    path = tmp_path / f"v{suffix}"
    path.write_text("old")
    with pytest.raises(RenshuError, match=match):
        write_video(path, frames, fps=10)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_error_of_the_environment_passes_through(suffix, tmp_path):
    def frames():
        yield from solid(3)
        raise ZeroDivisionError("in the environment")

    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / f"v{suffix}", frames(), fps=10)
    assert list(tmp_path.iterdir()) == []


def test_suffix_and_fps_are_checked_first(tmp_path):
    def untouched():
        pytest.fail("a frame was asked for")
        yield

    with pytest.raises(RenshuError, match=r"\.mp4 or \.gif"):
        write_video(tmp_path / "v.avi", untouched(), fps=10)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(RenshuError, match="fps"):
            write_video(tmp_path / "v.mp4", untouched(), fps=fps)


def test_a_failing_ffmpeg_is_reported(tmp_path, monkeypatch):
    # Python stands in for an ffmpeg that ends at once with a message.
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: sys.executable)
    with pytest.raises(RenshuError, match=r"ffmpeg ended with 2: .*[Uu]nknown option"):
        write_video(tmp_path / "v.mp4", solid(50, 200, 200), fps=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_no_room_for_the_file(suffix, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(RenshuError, match=r"cannot write .*v\."):
            write_video(tmp_path / f"v{suffix}", noise, fps=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_annotate_writes_in_the_corner_of_a_copy():
    frame = np.full((200, 300, 3), 128, np.uint8)
    noted = annotate(frame, ["episode 1", "return 2"])
    assert (frame == 128).all()
    assert (noted.shape, noted.dtype) == (frame.shape, np.uint8)
    changed = (noted != frame).any(-1)
    assert changed[:60, :100].sum() > 100
    assert changed.sum() == changed[:60, :100].sum()
    assert noted.max() > 240
    assert noted.min() < 60
    np.testing.assert_array_equal(annotate(frame, []), frame)
    with pytest.raises(RenshuError, match="float32"):
        annotate(frame.astype(np.float32), ["x"])


def test_episode_frames_shows_every_state():
    env, returns = Line(length=3), []
    frames = list(episode_frames(env, lambda obs, first: 0, episodes=2, seed=5, caption=False, returns=returns))
    assert [int(frame[:, 0, 0].argmax()) for frame in frames] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert returns == [3.0, 3.0]
    assert env.seeds == [5, None]


def test_episode_frames_cuts_and_seeds():
    returns, seen = [], []
    frames = list(
        episode_frames(Line(99), lambda obs, first: seen.append(obs) or 1, 2, seed=1, max_steps=2, returns=returns)
    )
    assert len(frames) == 6
    assert returns == [2.0, 2.0]
    again: list = []
    list(episode_frames(Line(99), lambda obs, first: again.append(obs) or 1, 2, seed=1, max_steps=2, caption=False))
    np.testing.assert_array_equal(seen, again)


@pytest.mark.parametrize(
    ("picture", "match"),
    [
        ("none", 'NoneType.*render_mode="rgb_array"'),
        ("ansi", "str.*rgb_array"),
        ("float", "float64"),
        ("gray", r"\[8, 8\]"),
    ],
)
def test_environments_without_pictures(picture, match):
    with pytest.raises(RenshuError, match=match):
        next(episode_frames(Line(picture=picture), lambda obs, first: 0))


def test_numbers_out_of_range_are_refused_at_once():
    with pytest.raises(RenshuError, match="episodes is 0"):
        episode_frames(Line(), lambda obs, first: 0, episodes=0)
    with pytest.raises(RenshuError, match="max_steps is 0"):
        episode_frames(Line(), lambda obs, first: 0, max_steps=0)


def test_render_fps():
    env = Line()
    assert render_fps(env) == 12
    for metadata in ({}, {"render_fps": None}):
        env.metadata = metadata
        assert render_fps(env) == 30


def test_cartpole_to_both_kinds_of_file(tmp_path):
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    returns: list[float] = []
    for suffix in (".mp4", ".gif"):
        frames = episode_frames(env, lambda obs, first: int(obs[2] > 0), seed=0, max_steps=10, returns=returns)
        write_video(tmp_path / f"v{suffix}", frames, render_fps(env))
    assert returns == [10.0, 10.0]
    *format, mp4 = read_mp4(tmp_path / "v.mp4")
    gif = read_gif(tmp_path / "v.gif")[1]
    assert format == [600, 400, 50]
    assert len(mp4) == len(gif) == 11
    assert gif[0][1].shape == (320, 480, 3)
    env.close()
