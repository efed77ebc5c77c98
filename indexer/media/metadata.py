"""What a file says of itself, as fields of its payload: when, where and with what it was taken, by whom, of what.

Photos say it in EXIF, IPTC and XMP, often in all three. Where they disagree, this follows the Metadata Working Group
("Guidelines for Handling Image Metadata", version 2.0, 2010): EXIF counts before the two others. XMP counts before
IPTC, unless the digest beside the IPTC tells that this was changed since by a program that knows no XMP.

Times are as the file has them. A camera's clock without a known offset gives `2024-05-01T12:30:00`: no offset is made
up for it. Qdrant's datetime index takes such a time as UTC, so it may be filed some hours off, but never changed;
`year` and `month` are those on the clock. All values are JSON, and bounded.
"""

from __future__ import annotations

import math
from typing import Any

from indexer.media import iptc, values, xmp
from indexer.media.packets import Packets, packets
from indexer.media.values import clean, first, first_caption

_NO_SPEED = 65535  # EXIF's "more than fits"
_BELOW_SEA = frozenset({1, 3})  # GPSAltitudeRef; 3 is below the ellipsoid, since Exif 3.0
_FIRED = {"true": True, "false": False}


def describe(data: bytes, media_type: str) -> dict[str, Any]:
    """What an image's metadata say; empty if nothing.

    `media_type` is what `sniff` said of it. Fields, all of them optional:

    - `taken_at` (RFC 3339, without an offset if none is known), `year`, `month`. Where there is no time at which it was
      taken, that at which it was digitized
    - `camera`, `lens`, `exposure`: `seconds`, `f_number`, `iso`, `focal_length_mm`, `focal_length_35mm`, `flash`
    - `place`: `lat`, `lon` in degrees; `altitude` in metres; `city`, `region`, `country`
    - `title`, `caption`, `tags`, `creator`, `copyright`, `rating` (0 to 5), `software`

    Never raises: what is broken is left out. No pixel is decoded.
    """
    return _Photo(packets(data, media_type)).fields()


class _Photo:
    """A photo's metadata from all their sources, and which of them counts."""

    def __init__(self, found: Packets) -> None:
        self._texts, self._numbers = found.exif.texts, found.exif.numbers
        self._iptc = iptc.read(found.iptc)
        self._xmp = xmp.read(found.xmp)
        self._plain = found.texts
        self._iptc_is_newer = iptc.changed_since(found.iptc, found.digest)

    def fields(self) -> dict[str, Any]:
        exif, plain = self._texts.get, self._plain.get
        texts = {
            "camera": values.camera(*self._make_and_model()),
            "lens": first(exif("LensModel"), self._of_xmp("aux:Lens"), self._of_xmp("exifEX:LensModel")),
            "city": self._place_name(iptc.CITY, "City", "City"),
            "region": self._place_name(iptc.REGION, "State", "ProvinceState"),
            "country": self._place_name(iptc.COUNTRY, "Country", "CountryName"),
            "title": first_caption(self._either(iptc.TITLE, "dc:title"), exif("XPTitle"), plain("Title")),
            "caption": first_caption(
                exif("ImageDescription"),
                self._either(iptc.CAPTION, "dc:description"),
                *map(exif, ("UserComment", "XPComment", "XPSubject")),
                *map(plain, ("Description", "Comment")),
            ),
            "creator": first(
                exif("Artist"),
                "; ".join(self._list(iptc.CREATOR, "dc:creator")[: values.MAX_TAGS]),
                exif("XPAuthor"),
                plain("Author"),
            ),
            "copyright": first(exif("Copyright"), self._either(iptc.COPYRIGHT, "dc:rights"), plain("Copyright")),
            "software": first(exif("Software"), self._either(iptc.PROGRAM, "xmp:CreatorTool"), plain("Software")),
        }
        lists = {
            "exposure": self._exposure(),
            "tags": values.tags(self._list(iptc.KEYWORDS, "dc:subject"))
            or values.tags(self._texts.get("XPKeywords", "").split(";")),
        }
        kept: dict[str, Any] = {name: value for name, value in (texts | lists).items() if value}
        return self._moment() | kept | self._place() | self._rating()

    def _of_xmp(self, name: str) -> str:
        return self._xmp.get(name, [""])[0]

    def _either(self, dataset: int, name: str) -> str:
        """IPTC's or XMP's; what IPTC has cut to its own length counts as the same."""
        old, new = self._iptc.get(dataset, [""])[0], self._of_xmp(name)
        if not clean(old) or not clean(new):
            return old if clean(old) else new
        return old if self._iptc_is_newer and not new.startswith(old) else new

    def _list(self, dataset: int, name: str) -> list[str]:
        old, new = self._iptc.get(dataset, []), self._xmp.get(name, [])
        return (old or new) if self._iptc_is_newer else (new or old)

    def _make_and_model(self) -> tuple[str, str]:
        """From one source, for a make and a model of two would be a camera that never was."""
        make, model = (first(self._texts.get(name)) for name in ("Make", "Model"))
        return (make, model) if make or model else (self._of_xmp("tiff:Make"), self._of_xmp("tiff:Model"))

    def _place_name(self, dataset: int, plain: str, structured: str) -> str:
        shown, created = (
            self._of_xmp(f"Iptc4xmpExt:{which}/Iptc4xmpExt:{structured}")
            for which in ("LocationShown", "LocationCreated")
        )
        return first(shown, self._either(dataset, f"photoshop:{plain}"), created)

    def _moment(self) -> dict[str, Any]:
        for kind, dates, names in (
            ("Original", (iptc.DATE, iptc.TIME), ("photoshop:DateCreated", "exif:DateTimeOriginal")),
            ("Digitized", (iptc.DIGITIZED_DATE, iptc.DIGITIZED_TIME), ("xmp:CreateDate", "exif:DateTimeDigitized")),
        ):
            parts = (self._texts.get(f"{name}{kind}", "") for name in ("DateTime", "SubSecTime", "OffsetTime"))
            date, time = (self._iptc.get(dataset, [""])[0] for dataset in dates)
            others = [(self._of_xmp(name),) for name in names]
            others.insert(0 if self._iptc_is_newer else 1, (f"{date}T{time}" if time else date,))
            for given in (tuple(parts), *others):
                if known := values.moment(*given):
                    return known
        return {}

    def _place(self) -> dict[str, Any]:
        texts, numbers = self._texts, self._numbers
        found = values.place(
            values.degrees(numbers.get("GPSLatitude", ()), texts.get("GPSLatitudeRef", "")),
            values.degrees(numbers.get("GPSLongitude", ()), texts.get("GPSLongitudeRef", "")),
            fixed=texts.get("GPSStatus") == "A",
        )
        metres, below = self._exif_number("GPSAltitude"), self._exif_number("GPSAltitudeRef")
        if not found:
            found = values.place(
                values.xmp_degrees(self._of_xmp("exif:GPSLatitude")),
                values.xmp_degrees(self._of_xmp("exif:GPSLongitude")),
                fixed=self._of_xmp("exif:GPSStatus") == "A",
            )
            metres, below = (values.fraction(self._of_xmp(f"exif:GPSAltitude{end}")) for end in ("", "Ref"))
        if not found or metres is None:
            return found
        return found | values.altitude(-metres if below in _BELOW_SEA else metres)

    def _exposure(self) -> dict[str, Any]:
        flash = self._exif_number("Flash")
        found = {
            "seconds": values.number(self._number("ExposureTime"), 1e-9, 1e5),
            "f_number": values.number(self._number("FNumber"), 0.1, 1e4),
            "iso": self._speed(),
            "focal_length_mm": values.number(self._number("FocalLength"), 0.1, 1e5),
            "focal_length_35mm": values.number(self._number("FocalLengthIn35mmFilm"), 0.1, 1e5),
            "flash": _FIRED.get(self._of_xmp("exif:Flash/exif:Fired").lower())
            if flash is None
            else bool(int(flash) & 1),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _speed(self) -> int | None:
        names = ("PhotographicSensitivity", "RecommendedExposureIndex", "StandardOutputSensitivity")
        given = [*map(self._exif_number, names), values.fraction(self._of_xmp("exif:ISOSpeedRatings"))]
        known = (values.number(speed, 1, 1e8) for speed in given if speed != _NO_SPEED)
        return next((int(speed) for speed in known if speed is not None), None)

    def _rating(self) -> dict[str, Any]:
        given = (values.fraction(self._of_xmp("xmp:Rating")), self._exif_number("Rating"))
        stars = next((values.number(each, 0, 5) for each in given if each is not None), None)
        return {} if stars is None else {"rating": int(stars)}

    def _number(self, name: str) -> float | None:
        known = self._exif_number(name)
        return values.fraction(self._of_xmp(f"exif:{name}")) if known is None else known

    def _exif_number(self, name: str) -> float | None:
        known = self._numbers.get(name, (math.nan,))[0]
        return known if math.isfinite(known) else None
