"""Video of episodes: frames from an environment, a caption on each, an .mp4 or a .gif on disk."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from renshu.errors import RenshuError
from renshu.files.replacing import replacing
from renshu.loops.evaluation import LIMIT

if TYPE_CHECKING:
    import gymnasium

    from renshu.envs.source import EnvSource

Policy: TypeAlias = Callable[..., Any]
"""A function from an observation, and whether it begins an episode, to an action, both in the environment's form.

One that has an attribute `plans`, which is True, gets the environment's own state as a third argument.
"""

GIF_WIDTH = 480
"""The greatest width of a .gif, in pixels."""

# Browsers slow a .gif down when a frame should last less than 2 hundredths of a second.
_GIF_FPS = 50.0


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames to a video, completely or not at all.

    path: ends in .mp4 (H.264, yuv420p, an odd size is padded by one pixel; frames are not kept in memory) or in .gif
        (loops endlessly; frames wider than `GIF_WIDTH` are scaled down; above 50 frames per second some are left out,
        so that it still plays at the right speed). Missing folders are made, an older file is replaced.
    frames: [H, W, 3] uint8 arrays, all of one size; at least one.
    fps: frames per second, above 0.

    Raises RenshuError for another suffix, when there are no frames or they are not as above, and when the file cannot
    be written. What `frames` itself raises passes through. In each case an older file stays as it was.
    """
    path = Path(path)
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix.lower() not in writers:
        raise RenshuError(f"cannot write a video to {path}: the name must end in .mp4 or .gif")
    if not 0 < fps < float("inf"):
        raise RenshuError(f"fps is {fps}: it must be a number of frames per second above 0")
    checked = _of_one_size(frames)
    first = next(checked, None)
    if first is None:
        raise RenshuError(f"there is not one frame to write to {path}: give at least one")
    try:
        with replacing(path) as temporary:
            writers[path.suffix.lower()](temporary, first, checked, float(fps))
    except OSError as error:
        raise RenshuError(f"cannot write {path}: {error}. Check the folder, its permissions and the space") from error


def annotate(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    """Return a copy of a frame with lines of small text in its upper left corner.

    frame: [H, W, 3] uint8. The text is white on a dark, half-transparent background, each line about 1/25 of the
        height, at least 10 pixels; what does not fit is cut off.

    Raises RenshuError when the frame is not such an array.
    """
    from PIL import Image, ImageDraw, ImageFont

    _check_frame(frame)
    image = Image.fromarray(frame)
    if lines:
        size = max(10, frame.shape[0] // 25)
        text = {"xy": (size // 2, size // 3), "text": "\n".join(lines), "font": ImageFont.load_default(size)}
        draw = ImageDraw.Draw(image, "RGBA")
        _, _, right, bottom = draw.multiline_textbbox(**text)
        draw.rectangle((0, 0, right + size // 2, bottom + size // 3), fill=(0, 0, 0, 150))
        draw.multiline_text(**text, fill="white")
    return np.array(image)


def render_fps(env: gymnasium.Env) -> float:
    """Return the frames per second that an environment asks for in `metadata["render_fps"]`, 30 when it does not."""
    return float(env.metadata.get("render_fps") or 30)


def state_of(env: gymnasium.Env) -> Any:
    """Return the own state of a DeviceEnv behind Gymnasium's interface, in which a learner plans; None for others."""
    inner: Any = env.unwrapped
    bare = getattr(getattr(inner, "env", None), "bare", None)
    return None if bare is None else bare(inner.state)


def chosen(policy: Policy, env: gymnasium.Env, obs: Any, first: bool) -> Any:
    """Let a policy choose an action, with the environment's own state where it plans."""
    return policy(obs, first, state_of(env)) if getattr(policy, "plans", False) else policy(obs, first)


def episode_frames(
    env: gymnasium.Env,
    policy: Policy,
    episodes: int = 1,
    seed: int | None = None,
    max_steps: int | None = None,
    caption: bool = True,
    returns: list[float] | None = None,
) -> Iterator[np.ndarray]:
    """Play episodes and yield what they look like: a frame before each step and one after the last, [H, W, 3] uint8.

    env: one environment with `render_mode="rgb_array"`. It is not closed.
    policy: chooses the actions, see `Policy`.
    episodes: number of episodes, one after the other, at least 1.
    seed: for the first reset; the later ones carry on from it.
    max_steps: step at which to cut each episode, at least 1; None leaves that to the environment.
    caption: write episode, step and return so far on each frame.
    returns: a list to which the return of each episode is added when it ends.

    Raises RenshuError at once for a number out of range, and at the first frame when the environment gives no image.
    """
    if episodes < 1:
        raise RenshuError(f"episodes is {episodes}: it must be at least 1")
    if max_steps is not None and max_steps < 1:
        raise RenshuError(f"max_steps is {max_steps}: it must be at least 1, or None for no limit")

    def play() -> Iterator[np.ndarray]:
        for episode in range(episodes):
            obs, _ = env.reset(seed=seed if episode == 0 else None)
            total, ended = 0.0, False
            for step in itertools.count():
                frame = _rendered(env)
                if caption:
                    frame = annotate(frame, [f"episode {episode + 1}", f"step {step}", f"return {total:.2f}"])
                yield frame
                if ended or step == max_steps:
                    break
                obs, reward, terminated, truncated, _ = env.step(chosen(policy, env, obs, step == 0))
                total, ended = total + float(reward), terminated or truncated
            if returns is not None:
                returns.append(total)

    return play()


def record(path: Path, source: EnvSource, policy: Policy, episodes: int, seed: int | None) -> None:
    """Play episodes in a separate environment and write them to a video.

    path: as for `write_video`. source: makes the environment, which must render to "rgb_array". policy, episodes, seed:
    as for `episode_frames`.

    Without a time limit episodes are cut after `LIMIT` steps, as in evaluations. Raises RenshuError as these two do,
    EnvironmentFault when the environment cannot be made.
    """
    if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # otherwise SDL would look for a screen, and complain
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # or for a sound card, under Gymnasium before 1.4
    env = source.single(render_mode="rgb_array")
    limit = None if _has_limit(env) else LIMIT
    try:
        write_video(path, episode_frames(env, policy, episodes, seed, limit), render_fps(env))
    finally:
        env.close()


def _has_limit(env: gymnasium.Env) -> bool:
    """Tell whether a wrapper, or an environment of our own, counts steps."""
    try:
        return env.get_wrapper_attr("_max_episode_steps") is not None
    except AttributeError:
        return getattr(env.unwrapped, "_limit", None) is not None


def _rendered(env: gymnasium.Env) -> np.ndarray:
    frame = env.render()
    if not isinstance(frame, np.ndarray):
        raise RenshuError(
            f"render() of {env} returned {type(frame).__name__}, not an image (its render_mode is "
            f'{env.render_mode!r}): make it with render_mode="rgb_array"'
        )
    _check_frame(frame)
    # Some environments draw each frame into the same array.
    return frame.copy()


def _check_frame(frame: Any) -> None:
    if not isinstance(frame, np.ndarray):
        raise RenshuError(f"a frame is a {type(frame).__name__}: it must be a NumPy array, [H, W, 3] uint8")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise RenshuError(f"a frame is {frame.dtype}{list(frame.shape)}: it must be uint8[H, W, 3], red, green, blue")


def _of_one_size(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for index, frame in enumerate(frames):
        _check_frame(frame)
        shape = shape or frame.shape
        if frame.shape != shape:
            raise RenshuError(
                f"frame {index} is {frame.shape[1]} x {frame.shape[0]} pixels, those before it are {shape[1]} x "
                f"{shape[0]}: all frames of a video must have one size"
            )
        yield frame


def _write_mp4(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float) -> None:
    """Pipe frames to ffmpeg directly, because imageio's writer does not notice when ffmpeg fails at the end."""
    import imageio_ffmpeg

    height, width = first.shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    size = f"{width + width % 2}x{height + height % 2}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "-"]
    # The index at the front lets a browser play before it has the whole file; "file:" keeps ffmpeg from taking a colon
    # in the name for a protocol.
    command += ["-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", f"file:{path}"]
    with tempfile.TemporaryFile() as log:
        ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)
        broken = None
        try:
            # Leaving the block closes the pipe and waits for ffmpeg to finish the file.
            with ffmpeg:
                assert ffmpeg.stdin is not None
                for frame in itertools.chain([first], rest):
                    ffmpeg.stdin.write(np.pad(frame, padding, mode="edge").tobytes())
        except BrokenPipeError as error:
            broken = error
        if ffmpeg.returncode != 0:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-500:]
            raise OSError(f"ffmpeg ended with {ffmpeg.returncode}: {said or 'it said nothing'}") from broken
        if broken is not None:
            raise broken


def _write_gif(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float) -> None:
    from PIL import Image

    rate = min(fps, _GIF_FPS)
    kept = rate / fps

    def images() -> Iterator[Image.Image]:
        shown = -1
        for index, frame in enumerate(itertools.chain([first], rest)):
            if int(index * kept) == shown:
                continue
            shown += 1
            image = Image.fromarray(frame)
            if image.width > GIF_WIDTH:
                height = max(1, round(image.height * GIF_WIDTH / image.width))
                image = image.resize((GIF_WIDTH, height), Image.Resampling.BILINEAR)
            # Of Pillow's palettes this one keeps rare colours best: in a game, small things have them.
            image = image.quantize(256, Image.Quantize.MAXCOVERAGE)
            # A .gif counts in hundredths of a second: rounding the moments, not the durations, lets no error add up.
            image.info["duration"] = 10 * (round(100 * (shown + 1) / rate) - round(100 * shown / rate))
            yield image

    sequence = images()
    next(sequence).save(path, format="GIF", save_all=True, append_images=sequence, loop=0)
