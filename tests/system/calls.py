"""One HTTP call, as any client would make it."""

import json
import urllib.error
import urllib.request
from typing import Any


def call(method: str, url: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of one HTTP call; 0 when nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    except (urllib.error.URLError, ConnectionError):
        return 0, None
