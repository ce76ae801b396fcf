"""The programs through which the tests drive Kafka clients for Python.

A program reads requests from standard input and answers on standard output, one JSON object a line; clients.Request and
clients.Response in ../clients/driver.go describe them.
"""

import base64
import json
import re
import sys
import traceback

TIMEOUT = 60  # seconds; far above what any operation needs
MAX_BYTES = 8 << 20
EARLIEST, LATEST, NO_OFFSET = -2, -1, -1
HEARTBEAT_MS, SESSION_MS, REBALANCE_MS = 500, 6_000, 10_000  # of members of groups


class Unsupported(Exception):
    """The client has no such feature."""


def encode(b):
    return None if b is None else base64.b64encode(b).decode()


def decode(s):
    return None if s is None else base64.b64decode(s)


def encode_record(record):
    """A record of aiokafka or kafka-python, which name everything alike."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": encode(record.key),
        "value": encode(record.value),
        "headers": [{"key": k, "value": encode(v)} for k, v in record.headers],
    }


def decode_headers(record):
    return [(h["key"], decode(h["value"])) for h in record["headers"] or []]


def serve(driver, run=lambda result: result):
    """Answers until standard input ends.

    Each operation is a method of the driver, or of the member that its join returned, and takes the request. What it
    returns goes through run, which waits for it if the client is asynchronous.
    """
    members = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, method = request.get("member"), re.sub("[A-Z]", lambda m: "_" + m[0].lower(), request["op"])
        try:
            result = run(getattr(members.get(name, driver), method)(request))
            if method == "join":
                members[name], response = result, {}
            else:
                response = result or {}
            if method == "leave":
                del members[name]
        except Unsupported:
            response = {"error": "unsupported"}
        except Exception:
            response = {"error": traceback.format_exc()}
        print(json.dumps(response), flush=True)
