#!/opt/bittern/bin/python
"""The health check of the container: whether the daemon makes progress, or the page answers; else exit code 1."""

import http.client
import sys

# The daemon's `[health] port = 9100`, and the page, which answers 401 without a token.
PLACES = ((9100, "/health", 200), (8766, "/api/health", 401))

problems = []
for port, path, status in PLACES:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        problems.append(f"port {port}: {error}")
        continue
    print(f"port {port}: {answer.status} {text}")
    sys.exit(0 if answer.status in (200, status) else 1)
print(*problems, "expected the daemon with [health] port = 9100, or bittern serve", sep="; ")
sys.exit(1)
