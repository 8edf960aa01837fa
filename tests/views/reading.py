"""A report read back as a script would: its numbers by slide, split and field, and what it would load."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "image", "path", "use", "rect", "hr"}
LOADING = {"src", "href", "xlink:href", "action", "poster", "srcset"}


class Page(HTMLParser):
    """The values of ``data-field`` by (slide or split, field); addresses that are no data and no anchor; ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: dict[tuple[str, str], str] = {}
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        owner = given.get("data-slide") or given.get("data-split") or (self._open[-1][1] if self._open else "")
        if tag not in VOID:
            self._open.append((tag, owner))
        if "data-field" in given:
            key = (owner, given["data-field"])
            assert self.values.setdefault(key, given["data-value"]) == given["data-value"], f"two values of {key}"
        if "id" in given:
            self.ids.append(given["id"])
        for name in LOADING & set(given):
            if not given[name].startswith(("#", "data:")):
                self.loads.append(given[name])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def number(self, owner: str, field: str) -> float:
        return float(self.values[owner, field])
