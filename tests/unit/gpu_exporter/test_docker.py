"""Docker is asked, never changed, and nothing that it answers, or does not answer, holds or breaks the exporter."""

from __future__ import annotations

import io
import json
import os
import socket
import time

import pytest
from docker_daemon import Daemon, chunk, drips, half, hangs, says
from gpufleet.gpu_exporter import docker
from gpufleet.gpu_exporter.docker import Docker, DockerError, NoDocker, NoSuchContainer, read_answer
from hypothesis import given
from hypothesis import strategies as st

LIST = "/containers/json?all=1"


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path / "docker.sock")
    yield daemon
    daemon.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_containers_come_with_either_kind_of_body(daemon, chunked):
    daemon.chunked = chunked
    key = daemon.add("a")
    api = Docker(daemon.path)
    assert [entry["Id"] for entry in api.containers(5)] == [key]
    assert api.inspect(key, 5) == daemon.containers[key]
    assert {method for method, _ in daemon.requests} == {"GET"}


def test_a_container_that_is_gone_is_told_from_a_failure(daemon):
    with pytest.raises(NoSuchContainer, match="No such container"):
        Docker(daemon.path).inspect("0" * 64, 5)


def test_no_path_can_be_smuggled_into_an_id(daemon):
    for key in ("../x", "a/json?x=", "a b", "", "a\r\nX: y"):
        with pytest.raises(DockerError, match="no id"):
            Docker(daemon.path).inspect(key, 5)
    assert daemon.requests == []


def test_a_thousand_containers(daemon):
    for number in range(1000):
        daemon.add(f"c{number}")
    assert len(Docker(daemon.path).containers(5)) == 1000


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (half, "middle of an answer"),
        (lambda connection, good: None, "middle of an answer"),
        (says(b"hello\r\n\r\n"), "no HTTP"),
        (says(b"x" * 100000), "no HTTP"),
        (says(os.urandom(5000).replace(b"\n", b"") + b"\n"), "no HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}"), "no JSON"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100000), "no JSON"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "is no list"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "larger than 32 MiB"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "length is no number"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"), "larger than 32 MiB"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "chunk without its size"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), "unknown transfer coding"),
        (says(b'HTTP/1.1 500 X\r\nContent-Length: 18\r\n\r\n{"message":"oops"}'), "HTTP status 500: oops"),
        (says(b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy"), "HTTP status 503"),
    ],
)
def test_each_bad_answer_is_an_error_in_words(daemon, behaviour, words):
    daemon.behave[LIST] = behaviour
    with pytest.raises(DockerError, match=words):
        Docker(daemon.path).containers(5)


@pytest.mark.parametrize("behaviour", [hangs, drips])
def test_the_deadline_is_the_whole_answers(daemon, behaviour):
    daemon.behave[LIST] = behaviour
    began = time.monotonic()
    with pytest.raises(DockerError, match=r"no answer within 0\.3 s"):
        Docker(daemon.path).containers(0.3)
    assert time.monotonic() - began < 2


def test_an_answer_has_a_bound_even_when_it_says_no_length(daemon, monkeypatch):
    monkeypatch.setattr(docker, "_LARGEST_ANSWER", 1 << 20)
    daemon.behave[LIST] = says(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 << 20))
    with pytest.raises(DockerError, match="larger than"):
        Docker(daemon.path).containers(5)


def test_no_socket_is_told_from_a_docker_that_does_not_answer(tmp_path):
    with pytest.raises(NoDocker, match="no such socket"):
        Docker(str(tmp_path / "absent")).containers(1)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "left_over"))
    with pytest.raises(DockerError, match="not running") as refused:
        Docker(str(tmp_path / "left_over")).containers(1)
    assert not isinstance(refused.value, NoDocker)
    with pytest.raises(DockerError, match="too long"):
        Docker("/" + "x" * 200).containers(1)


def test_permission_denied_says_what_helps(monkeypatch, tmp_path):
    def refuse(self, path):
        raise PermissionError(13, "Permission denied")

    class Refusing(socket.socket):
        connect = refuse

    monkeypatch.setattr(docker.socket, "socket", Refusing)
    with pytest.raises(DockerError, match="group docker"):
        Docker(str(tmp_path / "docker.sock")).containers(1)


def answer(content, size=65536):
    file = io.BytesIO(content)
    return read_answer(lambda: file.read(size))


@given(
    st.binary(),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
def test_no_bytes_raise_anything_but_our_error(rest, head):
    try:
        status, _ = answer(head + rest)
    except DockerError:
        return
    assert head or rest.startswith(b"HTTP/1.")
    assert 100 <= status <= 999 or status < 100


@given(st.lists(st.binary(min_size=1)), st.integers(1, 50))
def test_a_body_arrives_whole_however_it_is_cut(pieces, size):
    body = b"".join(pieces)
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
    chunked = head + b"Transfer-Encoding: Chunked\r\n\r\n" + b"".join(map(chunk, [*pieces, b""]))
    assert answer(chunked, size) == (200, body)
    assert answer(head + b"content-length: %d\r\n\r\n%s" % (len(body), body), size) == (200, body)
    assert answer(head + b"\r\n" + body, size) == (200, body)


@given(st.lists(st.binary(min_size=1), min_size=1), st.data())
def test_half_a_body_is_never_taken_for_a_whole_one(pieces, data):
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, pieces))
    with pytest.raises(DockerError):
        answer(whole[: data.draw(st.integers(0, len(whole)))])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
    )
)
def test_json_comes_through(content):
    body = json.dumps(content).encode()
    assert json.loads(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))[1]) == content
