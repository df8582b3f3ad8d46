"""What a page of HTML is made of, and what is wrong with it."""

from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "img", "br", "wbr", "hr"}
_LABELLED = {"select", "input"}
_REFERENCES = ("for", "aria-labelledby")


class Page(HTMLParser):
    """A page that was read: its elements with their attributes, its text, and its faults in words."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.elements, self.faults, self.text = [], [], ""
        self._open = []
        self.feed(content.decode("utf-8"))
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.faults += self._check()

    def handle_starttag(self, tag, attributes):
        if len({name for name, _ in attributes}) < len(attributes):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))  # in SVG

    def handle_endtag(self, tag):
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()
            self.text += " " if tag in ("td", "th", "p", "a") else ""

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        """The attributes of each element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def addresses(self):
        """Whatever the page refers to."""
        return [each[name] for _, each in self.elements for name in ("href", "src", "action", "data") if name in each]

    def _check(self):
        ids = [each["id"] for _, each in self.elements if "id" in each]
        if len(set(ids)) < len(ids):
            yield "an id is there twice"
        referred = [each[name].split() for _, each in self.elements for name in _REFERENCES if name in each]
        yield from (f"nothing has the id {name}" for names in referred for name in names if name not in ids)
        if [each.get("lang") for each in self.of("html")] != ["en"] or len(self.of("title")) != 1:
            yield "it has no language or no title"
        levels = [int(tag[1]) for tag, _ in self.elements if tag in ("h1", "h2", "h3")]
        if levels.count(1) != 1 or levels[0] != 1:
            yield "it has not one first heading"
        labels = [each.get("for") for each in self.of("label")]
        fields = [each.get("id") for tag, each in self.elements if tag in _LABELLED]
        yield from (f"{field} has no label" for field in fields if field not in labels)
        yield from ("a heading of a table has no scope" for each in self.of("th") if "scope" not in each)
        yield from ("a picture has no words" for each in self.of("img") if not each.get("alt"))
        yield from (f"<{tag}> has {name}" for tag, each in self.elements for name in each if name.startswith("on"))
        yield from (f"<{tag}> has a style" for tag, each in self.elements if "style" in each)
