"""An HTML page as a tree, by the standard library's parser; tags that do not match are an error."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

from attrs import define, field

VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})


@define
class Element:
    """A tag with its attributes and what stands in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements below of that tag and with those attributes, in order; `class_` asks for one of the classes."""
        return [found for found in self._below() if found.tag == tag and found._has(attributes)]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """All text in it, with single blanks."""
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
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(html: str) -> Element:
    """The page's tree."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder.open == [builder.root], "a tag is not closed"
    return builder.root


def rows(table: Element) -> dict[str, list[Element]]:
    """The cells of each row of a table's body, by the text of its header's first link or of the header."""
    found = {}
    for row in table.one("tbody").all("tr"):
        head = row.one("th", scope="row")
        links = head.all("a")
        name = links[0].text if links else head.text
        assert name not in found
        found[name] = row.all("td")
    return found
