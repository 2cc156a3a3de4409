"""Text that crosses a border: one line for a header on the way out, storable text on the way back."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator

_BREAKING = frozenset(("Cc", "Cs", "Zl", "Zp"))  # controls with NUL, CR, LF and U+0085, surrogates, line and paragraph separators


def one_line(value: str) -> str:
    """``value`` if it can stand in a header; ``ValueError`` if it holds a character that could end the line or start another header."""
    for character in value:
        if unicodedata.category(character) in _BREAKING:
            raise ValueError(f"must not hold control characters or line breaks, but holds U+{ord(character):04X}")
    return value


def storable(value: str) -> str:
    """``value`` without what jsonb refuses (NUL, lone surrogates): a foreign server chose these bytes, and a result must be storable."""
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


Line = Annotated[str, AfterValidator(one_line)]
