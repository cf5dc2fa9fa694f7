#!/usr/bin/env python3
"""Ask /health on a port of this container, print the answer, and end with 1 where it is 503 or nobody answers."""

import http.client
import sys

try:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=4)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    sys.stdout.write(answer.read().decode())
except OSError as error:
    sys.exit(f"no answer on port {sys.argv[1]}: {error}")
sys.exit(answer.status != http.HTTPStatus.OK)
