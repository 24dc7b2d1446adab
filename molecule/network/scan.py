"""Prints the TCP ports that answer, of all there are: python3 scan.py ADDRESS...

Connections, not packets: what is printed is what a client could use.
"""

import select
import socket
import sys
import time

AT_ONCE = 4000
PATIENCE = 0.5  # seconds without an answer after which a port counts as closed


def scan(address, ports):
    """Return those of some ports that take a connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    poll, waiting, found = select.poll(), {}, []
    for port in ports:
        connection = socket.socket(family)
        connection.setblocking(False)
        connection.connect_ex((address, port))
        waiting[connection.fileno()] = (connection, port)
        poll.register(connection, select.POLLOUT)
    deadline = time.monotonic() + PATIENCE
    while waiting and time.monotonic() < deadline:
        for descriptor, _ in poll.poll(100):
            connection, port = waiting.pop(descriptor)
            poll.unregister(descriptor)
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            connection.close()
    for connection, _ in waiting.values():
        connection.close()
    return found


for target in sys.argv[1:]:
    answering = [
        port for first in range(1, 65536, AT_ONCE) for port in scan(target, range(first, min(first + AT_ONCE, 65536)))
    ]
    print(target, *sorted(answering))
