"""XMP: the properties of a packet, which is RDF in XML from strangers (ISO 16684-1).

A packet with a document type is refused, so that no entity can be declared, expanded or fetched; so is a long one.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

MAX_PACKET = 2**20
"""Bytes of a packet that is read. JPEG holds 64 KiB; longer ones mostly have a history of edits."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_ARRAYS = {f"{{{_RDF}}}{kind}" for kind in ("Alt", "Bag", "Seq")}
_NAMESPACES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/exif/1.0/aux/": "aux",
    "http://cipa.jp/exif/1.0/": "exifEX",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    _RDF: "rdf",
}
_DEPTH = 3  # of structures in one another
# Without a byte order mark, an encoding shows in the zeros beside the first "<".
_UNMARKED = {b"<\0\0\0": "utf-32-le", b"\0\0\0<": "utf-32-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_MARKED = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read(packet: bytes) -> dict[str, list[str]]:
    """The values of the known properties, by names such as `dc:title`; of language alternatives the default first.

    A structure's fields have names such as `exif:Flash/exif:Fired`. Never raises; empty if it does not parse.
    """
    found: dict[str, list[str]] = {}
    root = _parsed(packet)
    rdf = None if root is None else next(root.iter(f"{{{_RDF}}}RDF"), None)
    for description in rdf if rdf is not None else ():
        _collect(description, "", found, _DEPTH)
    return found


def _parsed(packet: bytes) -> ElementTree.Element | None:
    if not packet or len(packet) > MAX_PACKET:
        return None
    text = _decoded(packet)
    # It is parsed as text, which no declaration of another encoding can change: what is not seen here is not there.
    if "<!DOCTYPE" in text:
        return None
    try:
        return ElementTree.fromstring(text[: text.rfind(">") + 1].lstrip("\ufeff\0 \t\r\n"))  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def _decoded(packet: bytes) -> str:
    for signs in (_MARKED, _UNMARKED):
        for sign, encoding in signs.items():
            if packet.startswith(sign):
                return packet.decode(encoding, "replace")
    return packet.decode("utf-8-sig", "replace")


def _collect(node: ElementTree.Element, path: str, found: dict[str, list[str]], depth: int) -> None:
    """Put the properties of a node into `found`: simple ones may be attributes, others are elements."""
    for key, value in node.items():
        if (name := _name(key)) and not name.startswith("rdf:"):
            found.setdefault(path + name, []).append(value)
    for element in node:
        name = _name(element.tag)
        if name == "rdf:Description":  # a structure's fields may be in one
            name = ""
        elif name is None or name.startswith("rdf:"):
            continue
        own = path + name
        for item in _values(element):
            if len(item) or _has_properties(item):
                if depth:
                    _collect(item, f"{own}/" if name else path, found, depth - 1)
            elif name and (text := (item.text or "").strip()):
                found.setdefault(own, []).append(text)


def _values(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """An array's items, the default language first; of what is no array, itself."""
    if len(element) and element[0].tag in _ARRAYS:
        yield from sorted(element[0], key=lambda item: item.get(_LANGUAGE) != "x-default")
    else:
        yield element


def _has_properties(element: ElementTree.Element) -> bool:
    return any((_name(key) or "rdf:").partition(":")[0] != "rdf" for key in element.keys())  # noqa: SIM118  no dict


def _name(tag: str) -> str | None:
    """`dc:title` for a name in a known namespace, else None."""
    namespace, _, name = tag.removeprefix("{").rpartition("}")
    prefix = _NAMESPACES.get(namespace)
    return f"{prefix}:{name}" if prefix else None
