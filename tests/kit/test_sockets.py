"""What is asked of the kernel."""

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from taskrunner.kit.sockets import allow_files


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_files_is_raised_as_far_as_it_goes() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    allow_files(300)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
    allow_files(200)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)


def test_a_hard_limit_that_is_too_low_is_said() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); from taskrunner.kit.sockets import allow_files; "
        "allow_files(300); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout
    assert "raise ulimit -n" in said
    assert said.endswith("(200, 200)\n")
