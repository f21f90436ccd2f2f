"""Pages: links lead somewhere, both languages have the same pages with the same code, and a site is built of them."""

import io
import os
import re
import tokenize
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import algorithms

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
JAPANESE = sorted((DOCS / "ja").rglob("*.md"))
ENGLISH = [
    *(DOCS / name for name in ("index.md", "first_hour.md", "stable-baselines.md")),
    *sorted((DOCS / "guide").glob("*.md")),
    *sorted((DOCS / "algorithms").glob("*.md")),
]
"""The pages that both languages have."""
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def in_japanese(page):
    return DOCS / "ja" / page.relative_to(DOCS)


def anchors(page):
    """Names of a page's headings, as GitHub and the site make them."""
    text = FENCED.sub("", page.read_text())
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.strip().lower())) for title in titles}


@pytest.mark.parametrize(
    "page", [HOME / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: str(page.relative_to(HOME))
)
def test_every_link_leads_somewhere(page):
    lost = []
    for target in re.findall(r"\]\(([^()\s]+)\)", FENCED.sub("", page.read_text())):
        name, _, anchor = target.partition("#")
        path = page if not name else Path(os.path.normpath(page.parent / name))
        if re.match(r"https://[\w.-]+\.\w+/", target):
            continue  # that it is there today is no matter of a test
        if not path.is_relative_to(HOME) or not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(target)
    assert lost == []


def code_of(text):
    """Code without its comments, which are translated."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    skipped = (tokenize.COMMENT, tokenize.NL)
    found = [token.string for token in tokens if token.type not in skipped]
    return [re.sub(r'^"""(.*)"""$', "", string, flags=re.DOTALL) for string in found]


def lines_of(text):
    """Lines of a shell without comments."""
    return [line.partition("#")[0].split() for line in text.splitlines()]


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)
def test_a_japanese_page_has_the_code_of_the_english_one(page):
    """So that a snippet which runs there, runs here."""
    texts = [path.read_text() for path in (in_japanese(page), page)]
    here, there = (FENCED.findall(text) for text in texts)
    assert [name for name, _ in here] == [name for name, _ in there]
    for (language, mine), (_, theirs) in zip(here, there, strict=True):
        if language == "python":
            assert code_of(mine) == code_of(theirs)
        elif language == "sh":
            assert lines_of(mine) == lines_of(theirs)
    levels = [re.findall(r"^(#+) ", FENCED.sub("", text), re.MULTILINE) for text in texts]
    assert levels[0] == levels[1]


def test_japanese_pages_are_those_that_have_an_english_one():
    assert set(JAPANESE) == {in_japanese(page) for page in ENGLISH}
    kana = re.compile(r"[\u3040-\u30ff]")
    assert [page.name for page in JAPANESE if len(kana.findall(page.read_text())) < 50] == []


def test_every_algorithm_has_a_page():
    pages = {page.stem for page in (DOCS / "algorithms").glob("*.md")} - {"index"}
    assert pages == {name.lower() for name in algorithms()}
    for page in pages:
        assert "<!-- hyperparameters -->" in (DOCS / "algorithms" / f"{page}.md").read_text(), page


def test_hyperparameters_are_translated():
    import dataclasses

    known = tomllib.loads((DOCS / "ja" / "hyperparameters.toml").read_text())
    said = {kind_of(field).doc for kind in algorithms().values() for field in dataclasses.fields(kind)}
    assert said - known.keys() == set()
    assert known.keys() - said == set()


def nav(entry):
    """Pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in nav(part)]


def test_the_navigation_has_every_page_once():
    english = nav(tomllib.loads((DOCS / "zensical.toml").read_text())["project"]["nav"])
    japanese = nav(tomllib.loads((DOCS / "ja" / "zensical.toml").read_text())["project"]["nav"])
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if DOCS / "ja" not in page.parents}
    assert sorted(name for name in english if not name.startswith("reference/")) == sorted(there)
    assert sorted(japanese) == sorted(str(page.relative_to(DOCS / "ja")) for page in JAPANESE)


class Page(HTMLParser):
    """Addresses that a page asks for, and its text."""

    def __init__(self):
        super().__init__()
        self.asked, self.links, self.ids, self.text = [], [], set(), ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag in ("script", "img", "link", "source", "video") and (given.get("src") or given.get("href")):
            self.asked.append(given.get("src") or given.get("href"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built in a folder of its own."""
    pytest.importorskip("zensical")
    from tools.site import build_site

    return build_site(tmp_path_factory.mktemp("docs"))


def read(path):
    page = Page()
    page.feed(path.read_text())
    return page


def test_the_site_is_built_and_asks_for_nothing_from_elsewhere(site):
    found = {path: read(path) for path in site.rglob("*.html")}
    assert len(found) > 150
    for path, page in found.items():
        assert [address for address in page.asked if re.match(r"(https?:)?//", address)] == [], path
        if path.name == "404.html":
            continue  # its links are from the root
        for link in page.links:
            name, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or not name:
                continue
            target = Path(os.path.normpath(path.parent / name))
            assert target.exists(), (path, link)
            if anchor and target in found:
                assert anchor in found[target].ids, (path, link)


def test_pages_have_what_the_code_says(site):
    ppo, japanese = read(site / "algorithms" / "ppo.html").text, read(site / "ja" / "algorithms" / "ppo.html").text
    for text in (ppo, japanese):
        assert all(name in text for name in ("clip_range", "gae_lambda", "LunarLander-v3"))
        assert not any(mark in text for mark in ("<!--", "```"))
    assert "how far the probability ratio may move from 1" in ppo
    assert "how far the probability ratio may move from 1" not in japanese
    assert "<math" in (site / "algorithms" / "ppo.html").read_text()
    assert "Raises CheckpointError" in read(site / "reference" / "agent.html").text
    assert 'lang="ja"' in (site / "ja" / "index.html").read_text()
