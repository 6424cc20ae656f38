"""A local Hugging Face Hub: serves folders as repositories, with the routes and headers that huggingface_hub uses.

Set HF_ENDPOINT to `Hub.url`. Like the real Hub, it creates a commit for every publication. Requests without a token get
the same response for a missing repository as for a private one. The files of a gated repository are listed for
everybody, but served only with the right token. Tokens that do not start with "hf_" are invalid. Unlike the real Hub,
it serves large files from the same address as small ones, and it does not use Xet.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

#: Suffixes of files that the Hub stores with Git LFS.
LARGE = (".safetensors", ".bin")


class Repository:
    """Commits, oldest first, each a mapping of paths to contents; branches and tags point to them."""

    def __init__(self, token: str | None) -> None:
        self.token = token  #: token required to read the files of a gated repository; None: not gated
        self.commits: dict[str, Mapping[str, bytes]] = {}
        self.refs: dict[str, str] = {}

    def files(self, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        """Return the commit for a branch, tag or commit hash, and its files; None if there is none."""
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None


class Hub:
    """The server, which runs while the context is entered.

    `asked`: all requests so far, as "METHOD path". `broken`: if True, the response to every request is status 503.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.broken = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, name: str, folder: Path, *, tag: str | None = None, token: str | None = None) -> str:
        """Commit all files of a folder, set "main" (and `tag`) to the commit, and return its hash (40 hex digits).

        `token`: makes a new repository gated; its files are served only with this token.
        """
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        repository = self.repositories.setdefault(name, Repository(token))
        digest = hashlib.sha1(f"{name} {len(repository.commits)}".encode())
        for path, content in files.items():
            digest.update(f"\0{path}\0".encode() + content)
        commit = digest.hexdigest()
        repository.commits[commit] = files
        repository.refs |= {"main": commit} | ({tag: commit} if tag else {})
        return commit

    def fetched(self) -> set[str]:
        """Return the paths of all files that were requested with GET, including refused requests."""
        gets = (line.removeprefix("GET ") for line in self.asked if line.startswith("GET "))
        return {path.split("/", 5)[5] for path in gets if "/resolve/" in path}

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.close()


class _Handler(BaseHTTPRequestHandler):
    """Handles `GET /api/models/NAME[/revision/R|/tree/R]` and `HEAD|GET /NAME/resolve/R/PATH`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing; requests are recorded in `Hub.asked`."""

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.hub.broken:
            self._refuse(503, "", "Service unavailable")
        elif not (self.headers.get("Authorization") or "Bearer hf_").startswith("Bearer hf_"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif parts == [""]:
            self._send(200, b"a hub")
        elif parts[:2] == ["api", "models"] and len(parts) in (4, 6):
            what, revision = parts[4:] or ("revision", "main")
            self._send_listing("/".join(parts[2:4]), what, revision)
        elif parts[2:3] == ["resolve"] and len(parts) > 4:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "", f"no such page: {path}")

    def _send_listing(self, name: str, what: str, revision: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        commit, files = found
        listing: Any = [_entry(path, content) for path, content in files.items()]
        if what == "revision":
            listing = {
                "_id": commit[:24],
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": False,
                "gated": "manual" if self.hub.repositories[name].token else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in files],
            }
        self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        commit, files = found
        token = self.hub.repositories[name].token
        if token is not None and (given := self.headers.get("Authorization")) != f"Bearer {token}":
            sentence = f"Access to model {name} is restricted and you are not in the authorized list."
            self._refuse(401 if given is None else 403, "GatedRepo", sentence)
        elif path not in files:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        else:
            entry = _entry(path, files[path])
            headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if "lfs" in entry:
                headers |= {
                    "X-Linked-Etag": f'"{entry["lfs"]["oid"]}"',
                    "X-Linked-Size": str(entry["size"]),
                }
            self._send(200, files[path], {"ETag": f'"{entry["oid"]}"', **headers})

    def _find(self, name: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        if repository is None and self.headers.get("Authorization") is None:
            self._refuse(401, "", "Invalid username or password.")
        elif repository is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif (found := repository.files(revision)) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return found
        return None

    def _refuse(
        self, status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        reason = {"X-Error-Message": sentence, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": sentence}).encode(), {**reason, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        # A kept-alive connection would outlive the server.
        always = {"Content-Length": str(len(content)), "Connection": "close"}
        for name, value in {**(headers or {}), **always}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Return a file's entry in a tree listing: size, git blob hash, and for LFS files the SHA-256 of the content."""
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry
