"""The format of requests from the parent to a fork server."""

#: Bytes of the first part of a request, which is the length of the second part.
HEADER = 16


def header(message: bytes) -> bytes:
    """Return the first part of a request whose second part is `message`."""
    return f"{len(message):0{HEADER}d}".encode()
