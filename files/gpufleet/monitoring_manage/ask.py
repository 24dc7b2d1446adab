"""Questions to services: all at once, and never for longer than was said."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import ssl
import threading
import time
import typing as t
import urllib.error
import urllib.request

Question = t.Callable[[], t.Any]
"""Asks, and returns what was answered. Raises Unanswered."""


class Unanswered(Exception):
    """There is no answer; the text says why."""


class Unasked(Unanswered):
    """It could not even be asked."""


class Answers:
    """What came of some questions, by their keys."""

    def __init__(self, answers: t.Mapping[t.Hashable, t.Any]) -> None:
        self._answers = answers

    def __getitem__(self, key: t.Hashable) -> t.Any:
        """Return an answer. Raises Unanswered."""
        answer = self.get(key)
        if isinstance(answer, Unanswered):
            raise answer
        return answer

    def __contains__(self, key: t.Hashable) -> bool:
        """Whether it was asked."""
        return key in self._answers

    def get(self, key: t.Hashable) -> t.Any:
        """Return an answer, or the Unanswered."""
        return self._answers[key]


def together(questions: t.Mapping[t.Any, Question], within: float) -> Answers:
    """Ask all questions at once. What has no answer ``within`` so many seconds is left behind."""
    came: queue.SimpleQueue[tuple[t.Any, t.Any]] = queue.SimpleQueue()

    def ask(key: t.Any, question: Question) -> None:
        try:
            came.put((key, question()))
        except Unanswered as error:
            came.put((key, error))
        except Exception as error:  # whatever a service says must not keep the others from being heard
            came.put((key, Unanswered(f"{type(error).__name__}: {error}")))

    for key, question in questions.items():
        # A thread that hangs does not keep the program from ending.
        threading.Thread(target=ask, args=(key, question), daemon=True).start()
    answers: dict[t.Any, t.Any] = {}
    deadline = time.monotonic() + within
    while len(answers) < len(questions):
        try:
            key, answer = came.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            break
        answers[key] = answer
    return Answers({key: answers.get(key, Unanswered(f"no answer within {within:g} s")) for key in questions})


class Page(t.NamedTuple):
    """What a URL answered, and how long that took."""

    status: int
    seconds: float
    content: bytes


def page(url: str, within: float, client_certificate: str | None = None) -> Page:
    """Return what a URL answers, whatever its status. Raises Unanswered."""
    # A proxy that the environment names is for the way out, never for this host's own ports.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=_anybody(client_certificate)))
    begun = time.monotonic()
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=within) as response:
            content: bytes = response.read()
            return Page(response.status, time.monotonic() - begun, content)
    except urllib.error.HTTPError as error:
        return Page(error.code, time.monotonic() - begun, error.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(f"{url} does not answer: {_reason(error)}") from error


def text(url: str, within: float) -> str:
    """Return the page of a URL that has to answer with status 200. Raises Unanswered."""
    answer = page(url, within)
    if answer.status != 200:
        raise Unanswered(f"{url} answered {answer.status}")
    return answer.content.decode("utf-8", "replace")


def api(url: str, within: float) -> t.Any:
    """Return the data of an answer of Prometheus' API. Raises Unanswered."""
    try:
        return json.loads(text(url, within))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unanswered(f"{url} answered something else than Prometheus does") from error


def served_certificate(host: str, port: int, within: float) -> bytes:
    """Return the certificate, in DER, that is served at an address. Raises Unanswered."""
    try:
        with (
            socket.create_connection((host, port), within) as connection,
            _anybody(None).wrap_socket(connection) as encrypted,
        ):
            certificate = encrypted.getpeercert(binary_form=True)
    except OSError as error:
        raise Unanswered(f"{host}:{port} serves no certificate: {_reason(error)}") from error
    assert certificate is not None
    return certificate


def _anybody(client_certificate: str | None) -> ssl.SSLContext:
    """This host's own ports are asked: no name in a certificate says who that is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if client_certificate:
        try:
            context.load_cert_chain(client_certificate)
        except OSError as error:
            raise Unasked(f"{client_certificate}, which has to be shown, cannot be read: {_reason(error)}") from error
    return context


def _reason(error: BaseException) -> str:
    """The kernel's own words where there are some, without errno and brackets."""
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner or type(error).__name__)
