"""A server that speaks OpenAI's chat completions over real HTTP and answers with whatever a test wants."""

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORDS = ("red", "blue", "green", "white", "black", "small", "large", "wooden")
_THINGS = ("board", "wave", "rope", "cap", "hand", "table")
_STEPS = ("bending down", "lifting it up", "turning round", "letting go")


def good_answer(stage, name, counts=(5, 5, 5), descriptors=4):
    """An accepted answer, as a dictionary."""
    if stage == "ASKG":
        return {
            "name": name,
            "objects": list(_THINGS),
            "object_triples": _triples(_THINGS, _THINGS, "lies near"),
            "action_triples": _triples([name.lower()] * 5, _THINGS, "uses"),
            "sub_actions": list(_STEPS),
            "sub_action_triples": _triples([*_STEPS, *_STEPS], _STEPS, "goes with"),
        }
    if stage == "xprompt":
        kinds = ("object", "action", "sub_action")
        openings = ("where something", "which shows something", "starting with something")
        return {
            "name": name,
            **{
                f"{kind}_tails": [f"{opening} {word} in view" for word in _WORDS[:count]]
                for kind, opening, count in zip(kinds, openings, counts, strict=True)
            },
        }
    if stage == "rephrased":
        return {"name": name, "sentence": "somebody moves about in a way that everybody would know at once"}
    return {
        "name": name,
        "spatial": [f"a {word} thing in view" for word in _WORDS[:descriptors]],
        "temporal": [f"a {word} thing goes by" for word in _WORDS[:descriptors]],
    }


def _triples(heads, tails, relation):
    rows = [(head, tails[(number + 1) % len(tails)]) for number, head in enumerate(heads)][:5]
    return [
        {"head": head, "relation": f"{relation} {word}", "tail": tail}
        for (head, tail), word in zip(rows, _WORDS, strict=False)
    ]


class FakeLLM:
    """The server.

    `plans[name]` lists what the next requests about a class get: {"content": text} an answer of the model, {"status",
    "headers", "body"} another response, {"hang": True} nothing until the end, {"drop": True} a closed connection. After
    that, and without a plan, answers are good. `serve_only` N lets all but the first N requests hang.
    """

    KEY = "sk-test-0123456789abcdefABCDEF"
    """What a test gives as key, so that it can look for it afterwards."""
    good_answer = staticmethod(good_answer)

    def __init__(self):
        self.requests = []
        self.authorizations = []
        self.plans = {}
        self.serve_only = None
        self.usage = {"prompt_tokens": 100, "completion_tokens": 10}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def names(self):
        """The classes that were asked about, request by request."""
        return [class_of(request) for request in self.requests]

    def close(self):
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        name = class_of(body)
        with self._lock:
            self.requests.append(body)
            self.authorizations.append(handler.headers["Authorization"])
            number = len(self.requests)
            plan = self.plans.get(name)
            if plan:
                step = plan.pop(0)
            else:
                answer = good_answer(stage_of(body), name, counts_of(body), descriptors_of(body))
                step = {"content": json.dumps(answer)}
        if step.get("hang") or (self.serve_only is not None and number > self.serve_only):
            self._end.wait()
            return
        if step.get("drop"):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        text = step["body"] if "body" in step else json.dumps(self._completion(step))
        payload = text.encode()
        handler.send_response(step.get("status", 200))
        for key, value in {"Content-Type": "application/json", **step.get("headers", {})}.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    def _completion(self, step):
        message = {"role": "assistant", "content": step.get("content")}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": step.get("finish_reason", "stop")}],
            "usage": self.usage,
        }

    def _handler(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert self.path.endswith("/v1/chat/completions")
                fake._respond(self)

            def log_message(self, *args):
                pass

        return Handler


def class_of(request):
    questions = [m["content"] for m in request["messages"] if m["content"].startswith("Class name: ")]
    return questions[1].splitlines()[0].removeprefix("Class name: ")


def stage_of(request):
    if "json_schema" in request.get("response_format", {}):
        return request["response_format"]["json_schema"]["name"]
    intent = request["messages"][0]["content"]
    marks = {
        "sub_action_tails:": "xprompt",
        "sub_actions:": "ASKG",
        '"sentence"': "rephrased",
        "spatial:": "descriptors",
    }
    return next(stage for mark, stage in marks.items() if mark in intent)


def counts_of(request):
    question = [m["content"] for m in request["messages"] if m["content"].startswith("Class name: ")][1]
    return tuple(len(re.findall(r"^\d+\. <", part, re.MULTILINE)) for part in question.split("\n\n")[1:]) or (5, 5, 5)


def descriptors_of(request):
    """How many descriptors of a kind are asked for."""
    found = re.search(r"spatial: (\d+) descriptors", request["messages"][0]["content"])
    return int(found[1]) if found else 4
