"""Archives for tests: every kind that is read, and members of kinds that nobody should follow."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import zstandard

KINDS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst")
Members = Iterable[tuple[str, bytes]]


def pack(path: Path, members: Members, **more: object) -> Path:
    """Write an archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", **{"compression": zipfile.ZIP_DEFLATED, **more}) as archive:  # type: ignore[arg-type]
            for name, data in members:
                archive.writestr(
                    zipfile.ZipInfo(name), data, compress_type=more.get("compression", zipfile.ZIP_DEFLATED)
                )  # type: ignore[arg-type]
        return path
    data = tar_of([(regular(name, data), data) for name, data in members], **more)
    return write_tar(path, data)


def write_tar(path: Path, data: bytes) -> Path:
    """Write a tar's bytes, compressed as the name says."""
    if path.name.endswith((".tar.gz", ".tgz")):
        data = gzip.compress(data, 1)
    elif path.name.endswith(".zst"):
        data = zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


def regular(name: str, data: bytes) -> tarfile.TarInfo:
    """The header of a plain file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """The header of a link, device or pipe."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar_of(members: Sequence[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of a tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def encrypted(path: Path) -> Path:
    """Make a zip's members say that they are encrypted."""
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        found = data.find(sign)
        while found >= 0:
            data[found + at] |= 1
            found = data.find(sign, found + 1)
    path.write_bytes(data)
    return path


class Unseekable(io.RawIOBase):
    """A file that can only be written on: zips written to it have their sizes behind their members."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def streamed_zip(path: Path, members: Members, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip as a server does that sends it while it packs."""
    with Unseekable(path) as file, zipfile.ZipFile(file, "w", compression) as archive:  # type: ignore[arg-type]
        for name, data in members:
            archive.writestr(name, data)
    return path
