"""What a command returns, and what it is given."""

from collections.abc import Mapping
from typing import Any

DONE, FAILED, MISUSED, MISSING = 0, 1, 2, 3  # it failed; it was asked for wrongly; there is no such thing
Arguments = Mapping[str, Any]
