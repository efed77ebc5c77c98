"""The root of the tree."""

from __future__ import annotations

from typing import Any, ClassVar


class CrosslensError(Exception):
    """The root: a code, a sentence, a remedy.

    `details` holds what a machine may want beside the sentence (numbers, names); it must be JSON-able.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    default_remedy: ClassVar[str] = "Report this with the log; it is a defect in Crosslens."

    def __init__(self, message: str, *, remedy: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy if remedy is not None else self.default_remedy
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The error as machines get it: `{"code", "message", "remedy", **details}`."""
        return {**self.details, "code": self.code, "message": self.message, "remedy": self.remedy}
