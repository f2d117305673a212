"""Between a connection of the guest (stdin and stdout, which are one socket) and a port of this machine's loopback.

python3 -I -S relay.py PORT; qemu runs it for every connection of the guest, so only the standard library, and little of
it. It ends as soon as one of the two sides does, as when the guest loses its power.
"""

import os
import select
import socket
import sys

try:
    port = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except OSError:
    sys.exit(1)
other = {0: port.fileno(), port.fileno(): 1}
while True:
    for side in select.select(list(other), [], [])[0]:
        data = os.read(side, 65536)
        if not data:
            sys.exit()
        while data:
            data = data[os.write(other[side], data) :]
