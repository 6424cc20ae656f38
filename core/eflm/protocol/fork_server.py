"""The messages between a fork server and the process that uses it."""

#: Bytes of the first part of a request; it holds the length of what follows.
HEADER = 16


def header(message: bytes) -> bytes:
    """The first part of a request that carries `message`."""
    return f"{len(message):0{HEADER}d}".encode()
