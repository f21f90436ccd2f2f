"""The pages as a visitor sees them, in headless Chromium."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

from renshu.tracking.run import Run
from renshu.tracking.scores import note_score
from tests.board.runs import ENVIRONMENTS, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

HOSTILE = "<img src=x onerror=alert(1)>"
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\nIDATx"
    b"\x9cc\xf8\x0f\x00\x01\x01\x01\x00\x1b\xb6\xeeV\x00\x00\x00\x00IEND\xaeB`\x82"
)


def write_hostile(root):
    """A run with a script in every text, a video that is none, a table cut in half, and links out of the folder."""
    path = write_run(root / HOSTILE, algorithm=HOSTILE, environment=HOSTILE, ended=False)
    settings = json.loads((path / "settings.json").read_text())
    settings |= {"command": f"renshu train {HOSTILE} X\x1b[201~\n", "git": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE}
    (path / "settings.json").write_text(json.dumps(settings))
    data = (path / "episodes.csv").read_bytes()
    (path / "episodes.csv").write_bytes(data[: len(data) // 2])
    (path / "metrics.csv").write_bytes(b"step,loss\n1,<script>\n")
    (path / "walk.mp4").write_bytes(b"<html><script>alert(1)</script>")
    (root.parent / "secret.png").write_bytes(PNG)
    (path / "link.png").symlink_to(root.parent / "secret.png")
    (root / "link").symlink_to(root.parent)


BLOCKED = """
import os
import socket

connect = socket.socket.connect


def connecting(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        with open(os.environ["CALLS_OUTSIDE"], "a") as file:
            file.write(f"{address}")
        raise OSError("the network is blocked")
    return connect(self, address)


socket.socket.connect = connecting
"""
"""Module that Python imports as it starts: the process may call this machine alone, and what else it tried is kept."""


@contextmanager
def serving(root, *options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [
        sys.executable,
        "-c",
        "from renshu.cli import main; main()",
        "board",
        str(root),
        "--port",
        str(port),
        *options,
    ]
    blocked = root.parent / "blocked"
    blocked.mkdir(exist_ok=True)
    (blocked / "sitecustomize.py").write_text(BLOCKED)
    env = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(blocked), "CALLS_OUTSIDE": str(blocked / "calls")}
    with subprocess.Popen(
        [*line, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert f"127.0.0.1:{port}" in first, first
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
    assert not (blocked / "calls").exists(), (blocked / "calls").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("board") / "runs"
    for number, environment in enumerate(ENVIRONMENTS):
        for seed in range(2):
            write_run(root / f"run-{number}-{seed}", environment=environment, seed=seed, level=50 + 40 * seed)
    (root / "run-0-1" / "game.png").write_bytes(PNG)
    write_hostile(root)
    (root / "exp").mkdir()
    lines = [f"{label},{seed},{step},{step}" for label in ("PPO", HOSTILE) for seed in (0, 1) for step in (10, 20)]
    (root / "exp" / "curves.csv").write_text("\n".join(["label,seed,step,return", *lines, ""]))
    (root / "pbt").mkdir()
    lines = [f"{k},{i},{10 * k},{k + i},{i},0.001" for k in (1, 2) for i in range(4)]
    (root / "pbt" / "pbt.csv").write_text("\n".join(["interval,member,steps,return,parent,learning_rate", *lines, ""]))
    (root / "wrong").mkdir()
    (root / "wrong" / "pbt.csv").write_text("interval,member\n1,2\n")
    for name, header in (("tuned", "trial,state,start,return,std,learning_rate,activation"), ("torn", "trial,sta")):
        (root / name).mkdir()
        lines = [f"{i},complete,{int(i == 0)},{i % 7},0.5,{10.0 ** -(1 + i % 4)},{HOSTILE}" for i in range(30)]
        (root / name / "trials.csv").write_text("\n".join([header, *lines, "30,running,0,,,0.1,tanh", "31,comp"]))
        (root / name / "importance.csv").write_text(f"hyperparameter,share\nlearning_rate,0.8\n{HOSTILE},0.2\nx,y\n")
    (root / "chess").mkdir()
    (root / "chess" / "ratings.csv").write_text("player,elo\nAlphaZero,1200\n")
    return root


@pytest.fixture(scope="module")
def board(folder):
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as started:
        # No name is looked up and no other machine is reached, whatever a page asks for.
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", offline])
        yield browser
        browser.close()


@pytest.fixture
def visit(board, browser):
    """Open a page of the board; at the end nothing may have gone wrong, and nothing may have left the machine."""
    wrong, contexts = [], []

    def visiting(place, width=1280, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("dialog", lambda dialog: (wrong.append(f"script ran: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: inside(request.url))
        page.on("websocket", lambda found: inside(found.url.replace("ws://", "http://")))
        page.goto(board + place)
        return page

    def inside(url):
        if not url.startswith((board, "data:", "blob:")):
            wrong.append(f"left the machine: {url}")

    yield visiting
    for context in contexts:
        context.close()
    assert wrong == []


PLACES = {
    "/": "run-0-0",
    "/run/run-0-1": "Learning curve",
    "/run/" + HOSTILE.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20"): "metrics.csv",
    "/compare?run=run-0-0&run=run-0-1&run=run-2-0": "Training return in the last tenth",
    "/leaderboard": "RL Zoo",
    "/experiments": "exp",
    "/experiment?name=exp": "last tenth",
    "/experiment?name=pbt": "learning_rate",
    "/experiment?name=wrong": "is no table of a population",
    "/search?name=tuned": "31 trials: 30 complete, 1 running",
    "/search?name=torn": "no trials yet",
    "/search?name=..": "No such search",
    "/leagues": "AlphaZero",
    "/run/no/such/run": "is no run in this folder",
    "/run/..%2F..%2Fetc": "is no run in this folder",
    "/compare?run=nothing": "No such run: nothing",
    "/experiment?name=..": "No such experiment",
}


@pytest.mark.parametrize("place", PLACES)
def test_each_page_shows_its_contents_and_runs_no_script_of_others(visit, place):
    page = visit(place)
    page.get_by_text(PLACES[place]).first.wait_for(timeout=15_000)
    page.wait_for_timeout(300)
    assert page.locator("img[onerror]").count() == 0


def test_the_network_is_blocked(browser, tmp_path):
    page = browser.new_page()
    with pytest.raises(PlaywrightError, match=r"ERR_NAME_NOT_RESOLVED|ERR_INTERNET_DISCONNECTED"):
        page.goto("http://example.com")
    page.close()
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "CALLS_OUTSIDE": str(tmp_path / "calls")}
    line = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert subprocess.run([sys.executable, "-c", line], env=env, capture_output=True).returncode == 1
    assert "192.0.2.1" in (tmp_path / "calls").read_text()


def test_a_run_leads_from_the_list_to_its_page(visit):
    page = visit("/")
    page.get_by_role("link", name="run-0-1", exact=True).click()
    page.wait_for_url("**/run/run-0-1")
    page.get_by_text("Trained from Python, by").wait_for()
    page.locator("img[src*='game.png']").wait_for()
    assert page.evaluate("document.querySelector('img').naturalWidth") == 1


def test_chosen_runs_are_compared(visit):
    page = visit("/")
    page.get_by_placeholder("filter").fill("Acrobot")
    page.get_by_text("run-0-0", exact=True).wait_for(state="detached")
    page.get_by_label("Column with Header Selection").or_(page.locator(".ag-header-select-all input")).first.click()
    page.get_by_role("button", name="compare chosen").click()
    page.wait_for_url("**/compare?*")
    page.get_by_text("Training return in the last tenth").wait_for()
    assert page.locator("svg text", has_text="interquartile mean").count() == 1


def test_the_numbers_of_a_chart_are_downloaded(visit):
    page = visit("/run/run-0-1")
    with page.expect_download() as download:
        page.get_by_role("button", name="csv").first.click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "series,x,y"
    assert len(lines) == 1 + 60 + 60 + 3 * 3


def test_a_search_shows_history_importance_and_slices(visit):
    page = visit("/experiments")
    page.get_by_role("link", name="tuned (search)").click()
    for title in ("Trials", "What the hyperparameters account for", "learning_rate", "activation", "The best trials"):
        page.get_by_text(title, exact=True).first.wait_for()
    assert page.locator("svg text", has_text="best so far").count() == 1
    assert page.locator("svg text", has_text="1e-3").or_(page.locator("svg text", has_text="0.001")).count() >= 1


def test_pages_follow_a_training(visit, folder):
    path = write_run(folder / "live", episodes=3, evaluated=0, ended=False)
    try:
        listed, page = visit("/"), visit("/run/live")
        page.get_by_text("30 steps").wait_for()
        with Run.open(path) as run:
            run.lock()
            run.log_episodes([5_000], [0], [77.0], [10], [9.0])
            run.log_metrics(5_000, {"new_metric": 1.0})
            run.flush()
            page.get_by_text("training · 5,000 steps").wait_for(timeout=10_000)
            page.get_by_text("new_metric").first.wait_for(timeout=10_000)
            listed.get_by_text("1 training").wait_for(timeout=10_000)
        write_run(folder / "another")
        note_score(folder / "another", 600, [1.0] * 100, [1] * 100)
        listed.get_by_text("another", exact=True).wait_for(timeout=10_000)
    finally:
        shutil.rmtree(path)
        shutil.rmtree(folder / "another", ignore_errors=True)


@pytest.mark.parametrize("place", ["/", "/run/run-0-1", "/leaderboard", "/compare?run=run-0-0&run=run-0-1"])
def test_a_phone_scrolls_down_and_not_sideways_and_dark_is_dark(visit, place):
    page = visit(place, width=390, dark=True)
    page.get_by_text("Renshu").first.wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    red, green, blue = (
        int(part) for part in page.evaluate("getComputedStyle(document.body).backgroundColor")[4:-1].split(",")
    )
    assert max(red, green, blue) < 64


def test_a_run_that_was_replaced_by_a_link_hands_out_nothing(board, folder):
    path = write_run(folder / "swapped")
    (path / "game.png").write_bytes(PNG)
    place = f"{board}/file/swapped?name=game.png"
    urllib.request.urlopen(f"{board}/leaderboard").close()
    for _ in range(50):
        try:
            urllib.request.urlopen(place).close()
            break
        except urllib.error.HTTPError:
            time.sleep(0.2)
            urllib.request.urlopen(f"{board}/leaderboard").close()
    else:
        raise AssertionError("the picture was never found")
    outside = folder.parent / "elsewhere"
    path.rename(outside)
    path.symlink_to(outside)
    try:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(place)
    finally:
        path.unlink()


def test_files_outside_are_not_handed_out(board):
    for place in ("/file/run-0-1?name=../../secret.png", "/file/..?name=secret.png", "/file/link?name=secret.png"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(board + place)
        assert error.value.code == 404


def test_a_page_elsewhere_cannot_read_the_board_by_another_name(board):
    request = urllib.request.Request(board, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code == 400


def test_the_board_asks_for_its_token(folder, browser):
    with serving(folder, "--token", "open sesame") as address:
        page = browser.new_page()
        answer = page.goto(address)
        assert answer.status == 401
        page.goto(f"{address}/?token=open%20sesame")
        page.get_by_text("run-0-1", exact=True).wait_for()
        page.close()


def test_nothing_in_the_folder_is_changed(visit, folder):
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    page = visit("/run/run-0-0")
    page.get_by_text("Trained from Python, by").wait_for()
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
