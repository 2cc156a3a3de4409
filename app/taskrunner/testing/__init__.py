"""For the tests of your handlers: run one inline, run the whole service in your test's process, wait until its work is done."""

from taskrunner.testing.inline import Ran, run_inline
from taskrunner.testing.service import drain, service

__all__ = ["Ran", "drain", "run_inline", "service"]
