"""Programs that check, with one client's own means, what the driver programs have no operations for.

A program writes the client's version, and then the outcome of each check, as one JSON object a line; python_test.go
reads them.
"""

import json
import time
import traceback
from contextlib import contextmanager

from driver import TIMEOUT


def run(version, checks, *arguments):
    """Runs the checks, functions that fail by an exception; the first line of its documentation names a check."""
    print(json.dumps({"version": version}), flush=True)
    for check in checks:
        outcome = {"feature": check.__doc__.splitlines()[0]}
        try:
            check(*arguments)
        except Exception:
            outcome["error"] = traceback.format_exc()
        print(json.dumps(outcome), flush=True)


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def soon(get, want):
    """Like equal, for what a broker may learn only after the controller has answered."""
    deadline = time.monotonic() + TIMEOUT
    while (got := get()) != want and time.monotonic() < deadline:
        time.sleep(0.05)
    equal(got, want)


@contextmanager
def refused(code):
    """Expects an error whose name, as the client spells it, is code."""
    try:
        yield
    except Exception as e:
        error = e.args[0] if e.args else e
        equal(error.name() if hasattr(error, "name") else type(e).__name__, code)
        return
    raise AssertionError(f"not refused, want {code}")
