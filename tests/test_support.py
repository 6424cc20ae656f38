"""The helpers of `tests/support` that other tests rely on."""

from __future__ import annotations

import pytest

from support import pages


@pytest.mark.parametrize("void", ["<br>", "<br/>", "<br />"])
def test_a_void_tag_has_no_content(void):
    (paragraph,) = pages.read(f"<p>one{void}two</p>").all("p")
    assert paragraph.one("br").children == []
    assert paragraph.text == "onetwo"


@pytest.mark.parametrize("html", ["<p>", "<p><b></p></b>", "</p>"])
def test_unmatched_tags_are_an_error(html):
    with pytest.raises(AssertionError):
        pages.read(html)
