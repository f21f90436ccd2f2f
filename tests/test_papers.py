"""The page that shows the code beside its papers."""

from bench import papers


def test_the_page_is_what_the_command_would_write():
    assert papers.PAGE.read_text(encoding="utf-8") == papers.page(), "the code has changed: run python -m bench.papers"
