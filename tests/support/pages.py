"""Parses an HTML page to a tree with the standard library's parser. Unmatched tags are an error."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

from attrs import define, field

VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})


@define
class Element:
    """A tag with its attributes and content."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return all descendants with this tag and these attributes, in order. `class_` matches one of the classes."""
        return [found for found in self._below() if found.tag == tag and found._has(attributes)]

    def one(self, tag: str, **attributes: str) -> Element:
        """Return the only such element. Raises ValueError if there is none or more than one."""
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """The text of the element and its descendants, with whitespace collapsed."""
        return " ".join("".join(self._texts()).split())

    def _below(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._below()

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            yield from [child] if isinstance(child, str) else child._texts()

    def _has(self, attributes: dict[str, str]) -> bool:
        wanted = dict(attributes)
        chosen = wanted.pop("class_", None)
        own = self.attributes
        return (chosen is None or chosen in own.get("class", "").split()) and all(
            own.get(name) == value for name, value in wanted.items()
        )


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        if tag in VOID:  # `<br/>` calls this, too
            return
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(html: str) -> Element:
    """Parse a page and return the root of its tree. Raises AssertionError for unmatched tags."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder.open == [builder.root], "a tag is not closed"
    return builder.root


def rows(table: Element) -> dict[str, list[Element]]:
    """Return the cells of each body row of a table. The key is the text of the first link in the row header.

    If the header has no link, the key is its whole text.
    """
    found = {}
    for row in table.one("tbody").all("tr"):
        head = row.one("th", scope="row")
        links = head.all("a")
        name = links[0].text if links else head.text
        assert name not in found
        found[name] = row.all("td")
    return found
