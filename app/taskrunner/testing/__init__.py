"""For the tests of your handlers: run one inline, run the whole service in your test's process, wait until its work is done."""
