"""One annotation file of Pascal VOC: what is in an image, checked.

Boxes in the files count pixels from 1 and include the last one; here they are edges, see
`tfgraphreg.data.local`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from xml.parsers import expat

from tfgraphreg.errors import DataError, did_you_mean, first_line
from tfgraphreg.reading import read_text

Box = tuple[float, float, float, float]

_MOST_BYTES = 1 << 20
_MOST_LEVELS = 8
_MOST_OBJECTS = 1000
_MOST_TEXT = 200
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("difficult", "truncated", "occluded")
# Published files end a box one pixel outside of the image, or begin it at 0.
_SLACK = 1.0
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,20})?")


@dataclasses.dataclass(frozen=True)
class VocObject:
    """One object.

    Attributes:
        name: Of its class.
        box: Edges in pixels of the original image.
        difficult: Hard to recognize: it does not count in an evaluation.
        truncated: It goes on outside of the box.
        occluded: Something stands in front of it.
        parts: Name and box of each part that is marked, such as the head of a person.
    """

    name: str
    box: Box
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    parts: tuple[tuple[str, Box], ...] = ()


@dataclasses.dataclass(frozen=True)
class VocImage:
    """What a file says of an image.

    Attributes:
        size: `(width, height)` in pixels.
        objects: In the file's order.
        rounded: Lines whose coordinates are no whole numbers and were rounded, as some of VOC
            2011 and 2012 are.
    """

    size: tuple[int, int]
    objects: tuple[VocObject, ...]
    rounded: tuple[int, ...]


@dataclasses.dataclass
class _Element:
    name: str
    line: int
    text: str = ""
    children: list[_Element] = dataclasses.field(default_factory=list)


def read_annotation(path: os.PathLike[str] | str, classes: Sequence[str]) -> VocImage:
    """Reads one file of `Annotations`.

    Args:
        path: The file, of at most 1 MB.
        classes: The names that an object may have.

    Raises:
        DataError: If the file is no such annotation, declares entities or a document type, lacks a
            field, or has a coordinate or class that cannot be; the message names file and line.
    """
    path = pathlib.Path(path)
    return _Reader(path, classes).image(_parse(path))


class _Reader:
    """Checks the elements of one file."""

    def __init__(self, path: pathlib.Path, classes: Sequence[str]):
        self._path, self._classes = path, classes
        self._rounded: list[int] = []

    def image(self, root: _Element) -> VocImage:
        if root.name != "annotation":
            raise self._error(root, "the first element must be <annotation>", f"<{root.name}>")
        size = self._child(root, "size")
        width, height = (self._whole(self._child(size, name)) for name in ("width", "height"))
        found = [child for child in root.children if child.name == "object"]
        if len(found) > _MOST_OBJECTS:
            raise self._error(root, f"at most {_MOST_OBJECTS} objects are read", str(len(found)))
        objects = tuple(self._object(child, width, height) for child in found)
        return VocImage((width, height), objects, tuple(self._rounded))

    def _object(self, element: _Element, width: int, height: int) -> VocObject:
        named = self._child(element, "name")
        if named.text not in self._classes:
            raise self._error(
                named,
                "the class must be one of Pascal VOC's",
                repr(named.text),
                cure=did_you_mean(named.text, self._classes),
            )
        parts = tuple(
            (self._child(part, "name").text, self._box(part, width, height))
            for part in element.children
            if part.name == "part"
        )
        flags = {name: self._flag(element, name) for name in _FLAGS}
        return VocObject(named.text, self._box(element, width, height), parts=parts, **flags)

    def _box(self, element: _Element, width: int, height: int) -> Box:
        box = self._child(element, "bndbox")
        x0, y0, x1, y1 = (self._coordinate(self._child(box, name)) for name in _CORNERS)
        if x1 < x0 or y1 < y0:
            raise self._error(box, "a box must end after it begins", _shown(x0, y0, x1, y1))
        if x1 > width + _SLACK or y1 > height + _SLACK or x0 > width or y0 > height:
            raise self._error(
                box,
                f"a box must lie in the image of {width} x {height} pixels",
                _shown(x0, y0, x1, y1),
            )
        return max(x0 - 1, 0.0), max(y0 - 1, 0.0), min(x1, width), min(y1, height)

    def _coordinate(self, element: _Element) -> float:
        if not _NUMBER.fullmatch(element.text):
            raise self._error(
                element, f"<{element.name}> must be a number from 0 to 999999", repr(element.text)
            )
        value = float(element.text)
        if value != int(value):
            self._rounded.append(element.line)
        return float(round(value))

    def _whole(self, element: _Element) -> int:
        if not re.fullmatch(r"[1-9][0-9]{0,5}", element.text):
            raise self._error(
                element,
                f"<{element.name}> must be a whole number from 1 to 999999",
                repr(element.text),
            )
        return int(element.text)

    def _flag(self, element: _Element, name: str) -> bool:
        found = [child for child in element.children if child.name == name]
        if not found:
            return False
        if len(found) > 1 or found[0].text not in ("0", "1"):
            raise self._error(found[-1], f"<{name}> must be 0 or 1, once", repr(found[-1].text))
        return found[0].text == "1"

    def _child(self, element: _Element, name: str) -> _Element:
        found = [child for child in element.children if child.name == name]
        if len(found) != 1:
            received = f"{len(found)} of them" if found else "none"
            raise self._error(element, f"<{element.name}> must have one <{name}>", received)
        return found[0]

    def _error(
        self, element: _Element, rule: str, received: str, *, cure: str | None = None
    ) -> DataError:
        return _error(self._path, element.line, rule, received, cure)


def _shown(*corners: float) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(_CORNERS, corners))


def _error(
    path: pathlib.Path, line: int, rule: str, received: str, cure: str | None = None
) -> DataError:
    return DataError(f"{path}, line {line}: {rule}.", received=received, cure=cure)


def _parse(path: pathlib.Path) -> _Element:
    """The elements of a file, without attributes and comments."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        content = read_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"The annotation {path} cannot be read ({first_line(error)}).") from error
    parser = expat.ParserCreate()
    top = _Element("", 1)
    open_elements = [top]

    def refuse(*_: object) -> None:
        line = parser.CurrentLineNumber
        raise _error(path, line, "an annotation declares no document type and no entities", "one")

    def start(name: str, _: dict[str, str]) -> None:
        line = parser.CurrentLineNumber
        if len(open_elements) > _MOST_LEVELS:
            raise _error(path, line, "elements are nested too deeply", f"<{name[:_MOST_TEXT]}>")
        element = _Element(name[:_MOST_TEXT], line)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        closed = open_elements.pop()
        closed.text = closed.text.strip()

    def text(value: str) -> None:
        # One letter more than any field may have, so that what is cut is refused.
        open_elements[-1].text += value[: _MOST_TEXT + 1 - len(open_elements[-1].text)]

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(content.encode(), True)
    except expat.ExpatError as error:
        raise _error(path, error.lineno, "it is no XML", expat.ErrorString(error.code)) from error
    return top.children[0]
