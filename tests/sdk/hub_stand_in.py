"""A local server that takes uploads as the hub's HTTP interface does: small files in the commit, large ones beside it."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

LARGE = 100_000


class HubStandIn:
    """Serves until it is closed.

    Attributes:
        repositories: name to path to content, as committed.
        refuse: status that every request is answered with, where it is set.
        tokens: what callers showed.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.commits: list[dict] = []
        self.refuse: int | None = None
        self.tokens: set[str | None] = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(hub):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def answer(self, value, status=200):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def do_PUT(self):
                hub.objects[self.path.rsplit("/", 1)[1]] = self.body()
                self.answer({})

            def do_GET(self):
                self.answer({"error": "no such thing"}, 404)

            do_HEAD = do_GET  # noqa: N815

            def do_POST(self):
                content = self.body()
                hub.tokens.add(self.headers.get("Authorization"))
                if hub.refuse:
                    return self.answer({"error": "refused"}, hub.refuse)
                path = self.path.split("?")[0]
                if path == "/api/repos/create":
                    asked = json.loads(content)
                    name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
                    hub.repositories.setdefault(name, {})
                    return self.answer({"url": f"{hub.endpoint}/{name}", "name": name, "id": name})
                if path == "/api/validate-yaml":
                    assert json.loads(content)["content"].startswith("---\n")
                    return self.answer({"errors": [], "warnings": []})
                if path.endswith("/info/lfs/objects/batch"):
                    wanted = json.loads(content)["objects"]
                    upload = [
                        {**one, "actions": {"upload": {"href": f"{hub.endpoint}/objects/{one['oid']}"}}} for one in wanted
                    ]  # fmt: skip
                    return self.answer({"transfer": "basic", "objects": upload})
                name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
                if "/preupload/" in path:
                    files = [
                        {"path": one["path"], "uploadMode": "lfs" if one["size"] > LARGE else "regular", "shouldIgnore": False}
                        for one in json.loads(content)["files"]
                    ]
                    return self.answer({"files": files})
                if "/commit/" in path:
                    return self.commit(name, [json.loads(line) for line in content.splitlines()])
                return self.answer({"error": f"no such thing: {path}"}, 404)

            def commit(self, name, lines):
                for line in lines:
                    value = line["value"]
                    if line["key"] == "header":
                        hub.commits.append(value)
                    elif line["key"] == "lfsFile":
                        hub.repositories[name][value["path"]] = hub.objects[value["oid"]]
                    elif line["key"] == "file":
                        hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                address = f"{hub.endpoint}/{name}/commit/{'0' * 40}"
                self.answer({"success": True, "commitUrl": address, "commitOid": "0" * 40, "hookOutput": ""})

        return Handler
