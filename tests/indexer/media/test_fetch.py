"""Fetching what strangers name: from public hosts alone, whatever the URL, the resolver or the server does.

Real servers listen on loopback, and only an allow-list leads there. Two spies watch: one sees the addresses that the
fetcher asks to be connected to, the other every address that any socket of this process is connected to.
"""

# ruff: noqa: SIM905  long lists of addresses read best unquoted

import gzip
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpcore
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.errors import CrosslensError, FetchFailed, FetchTimeout, MediaError, UrlRefused, UsageError
from indexer.media.addresses import AllowList, Target, is_public, read_address
from indexer.media.checked_requests import Resolver
from indexer.media.decode import decode
from indexer.media.fetch import Fetched, Fetcher
from indexer.media.formats import SNIFF_BYTES
from indexer.media.pinned import Deadline, PinnedBackend
from indexer.settings import Settings

pytestmark = pytest.mark.timeout(60)

GIF = b"GIF89a\x01\0\x01\0\x80\0\0\xff\0\0\xff\xff\xff!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
PUBLIC = "93.184.216.34"
PUBLIC_V6 = "2606:2800:220:1:248:1893:25c8:1946"
MAX_BYTES = 100_000

PRIVATE = """
    127.0.0.1 127.8.9.1 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 169.254.0.1
    100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 192.88.99.1
    224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe
    ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2001:0:53aa:64c::1 fc00::1
    fd00:ec2::254 fd12:3456::1 fe80::1 fec0::1 ff02::1 2001:db8::1 2001:2::1 3fff::1 100::1 5f00::1 4000::1
""".split()
"""One of each kind: nobody outside is reached there, or something answers that must not."""
OURS = [
    ip_network(network)
    for network in """
        0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 168.63.129.16/32
        224.0.0.0/3 ::/96 ::ffff:0:0/96 64:ff9b:1::/48 2001::/32 2002::/16 fc00::/7 fe80::/9 ff00::/8
    """.split()
]


def is_ours(text: str) -> bool:
    """Whether an address is one that no stranger may reach; said here in other words than in the module."""
    address = ip_address(text)
    if address in ip_network("64:ff9b::/96"):
        address = ip_address(int(address) % 2**32)
    return any(address in network for network in OURS)


_connects: list[list[object]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"} and _connects:
        _connects[-1].append(arguments[1])


sys.addaudithook(_audit)  # it cannot be taken off again, but listens only while a test asks it to


@pytest.fixture
def sockets() -> Iterator[list[object]]:
    """Every address that a socket of this process is connected to, from whichever thread or library."""
    seen: list[object] = []
    _connects.append(seen)
    yield seen
    _connects.remove(seen)


class Network(httpcore.NetworkBackend):
    """The world as a fetcher sees it: it notes each address asked for, and leads those of `routes` to a local port."""

    def __init__(self, routes: dict[str, int] | None = None) -> None:
        self.routes = routes or {}
        self.asked: list[str] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.asked.append(host)
        assert read_address(host) is not None, f"{host} would be resolved a second time"
        if host not in self.routes:
            raise httpcore.ConnectError("this test has no such host")
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.routes[host], timeout)


class Names:
    """A resolver that gives its answers one after the other, and the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def by_name(answers: dict[str, str]) -> Resolver:
    """A resolver of names that have one address each."""
    return lambda host, _: [answers[host]]


Answer = Callable[[socket.socket], None]


@dataclass
class Site:
    """A server of raw answers by path; it notes each request's head."""

    answers: dict[str, Answer] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.stop.is_set():
                return connection.close()
            self._threads.append(threading.Thread(target=self._serve, args=[connection]))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
                    head += part
                if head.endswith(b"\r\n\r\n"):
                    self.heads.append(head.decode())
                    self.answers.get(self.heads[-1].split()[1], ok(b"?", "404 Not Found"))(connection)
        except OSError:
            connection.close()  # who fetches hangs up: most of these tests end so

    def close(self) -> None:
        self.stop.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def forever(self, *parts: bytes, pause: float = 0) -> Answer:
        """The first part once, then the others until who fetches hangs up."""

        def answer(connection: socket.socket) -> None:
            connection.sendall(parts[0])
            while not self.stop.wait(pause):
                for part in parts[1:]:
                    connection.sendall(part)

        return answer

    def serve(self, answer: Answer, path: str = "/a.gif") -> str:
        """Give this answer at a path; the path's URL."""
        self.answers[path] = answer
        return self.url + path


def raw(content: bytes) -> Answer:
    """These bytes, and the end."""
    return lambda connection: connection.sendall(content)


def ok(body: bytes, status: str = "200 OK", length: int | str | None = None, **headers: str) -> Answer:
    length = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join([*lines, "", ""]).encode() + body)


def redirect(location: str, status: str = "302 Found") -> Answer:
    return ok(b"", status, Location=location)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def silence(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.fixture
def site(sockets: list[object]) -> Iterator[Site]:
    """A server that a fetcher reaches by an allow-list; nothing else may have been connected to in the end."""
    site = Site()
    yield site
    allowed = {("127.0.0.1", site.port)}
    seen = set(sockets)
    site.close()
    assert seen <= allowed


def fetch(url: str, **options: object) -> Fetched:
    """Fetch by a fetcher of these options."""
    with Fetcher(**{"max_bytes": MAX_BYTES, "deadline": 10.0, **options}) as fetcher:  # type: ignore[arg-type]
        return fetcher.fetch(url)


def code_of(url: str, **options: object) -> str:
    """The code of the error that fetching ends with."""
    with pytest.raises(CrosslensError) as caught:
        fetch(url, **options)
    assert caught.value.remedy
    return caught.value.code


# What a URL says


WORDS = f"""
    a example.com/a.gif //example.com/a.gif http: http:/example.com http:///a https:// file:///etc/passwd
    ftp://example.com/a gopher://example.com:70/_ data:image/gif;base64,R0lG javascript:alert(1)
    jar:http://example.com!/ ws://example.com/ http+unix://%2Ftmp%2Fs/a

    http://me@example.com/ http://me:secret@example.com/ http://example.com@127.0.0.1/ http://@a.com/
    http://example.com:80@127.0.0.1/ http://127.0.0.1#@example.com@/ http://a@b@127.0.0.1/

    http://.example.com/ http://a..com/ http://example.com../ http://./ http://{"a" * 64}.com/ http://{"a." * 127}com/
    http://{"é" * 300}.com/ http://ex_am*ple.com/ http://exam%70le.com/ http://%31%32%37.0.0.1/ http://☃.net/
    http://a.com,b.com/ http://-\u0301.a/ http://example.com：80/ http://example.com／@127.0.0.1/ http://127。0。0。1／a/

    http://example.com:22/ http://example.com:25/ https://example.com:1023/ http://example.com:0/
    http://example.com:65536/ http://example.com:-1/ http://example.com:80:80/ http://example.com:８０/
    http://example.com:+80/ http://example.com:0x50/ http://example.com/{"a" * 8000}
""".split()
"""Not of the web; with credentials, or what looks like them; with hosts that are none; with ports that are none."""
TRICKS = ["", " http://a.com/", "\thttp://a.com", "http://a.com/a b", "http://exa mple.com/", "http://a.com:8 0/"]
TRICKS += ["http://a.com\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http://127.0.0.1\\.a.com/", "http://a.com/\\b"]
TRICKS += ["http://exa\tmple.com/", "http://a.com\n/", "http://a.com/\r\nHost: 127.0.0.1", "http://a.com/\0"]
TRICKS += ["http://127.0.0.1\0.a.com/", "http://a.com/\x7f", "http://a.com/\x85", "http://a\u200bb.com/"]
TRICKS += ["http://a.com/\u2028", "http://a\u202eb.com/", "http://a.com/\ud800", "http://a.com/\u00a0"]
"""With characters that some readers strip, and others take for something else."""


@pytest.mark.parametrize("url", WORDS + TRICKS)
def test_what_is_no_plain_url_of_the_web_is_refused(url: str, sockets: list[object]) -> None:
    network = Network()
    assert code_of(url, backend=network, resolve=Names([PUBLIC])) == "url_refused"
    assert network.asked == []
    assert sockets == []


NOTATIONS = """
    2130706433 0177.0.0.1 0x7f.0.0.1 0x7f000001 127.1 127.0.1 0 0x 017700000001 127.0.0.1. 127.000.000.001 127.0.0.01
    00127.0.0.1 127.0.0.0x1 4294967297 127.0.0.256 1.2.3.4.5 3232235521 0251.0376.0251.0376 0xa9fea9fe 2852039166
    0xA9.0xFE.0xA9.0xFE 127。0。0。1 127｡0｡0｡1 127．0．0．1 １２７.０.０.１ ①②⑦.⓪.⓪.① 𝟏𝟐𝟕.𝟎.𝟎.𝟏 ２１３０７０６４３３ 0ｘ7f.1
    [::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:169.254.169.254] [::127.0.0.1]
    [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::1]
    [2001:0:5ef5:79fd::80ff:fffe] [fe80::1%25eth0] [fe80::1%eth0] [::1%lo] [2606:2800::1%1] [127.0.0.1] [v1.::1] []
    [::1 ::1] ::1 [[::1]] [::1]x [::1].example.com [example.com] x[::1] [fd00:ec2::254] 169.254.169.254
    169.254.169.254.
""".split()


@pytest.mark.parametrize("host", NOTATIONS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_in_whatever_notation_is_judged_by_what_it_means(
    scheme: str, host: str, sockets: list[object]
) -> None:
    network = Network()
    # As the system would: to it, most of these are loopback or metadata.
    assert code_of(f"{scheme}://{host}/a.gif", backend=network, resolve=Names([PUBLIC])) == "url_refused"
    assert network.asked == []
    assert sockets == []


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_reached_neither_by_address_nor_by_name(address: str, sockets: list[object]) -> None:
    network = Network()
    host = f"[{address}]" if ":" in address else address
    assert code_of(f"http://{host}:8080/a.gif", backend=network) == "url_refused"
    assert code_of("https://photos.test/a.gif", backend=network, resolve=Names([address])) == "url_refused"
    for answers in ([PUBLIC, address], [address, PUBLIC], [PUBLIC_V6, PUBLIC, address]):
        assert code_of("https://photos.test/", backend=network, resolve=Names(answers)) == "url_refused"
    assert network.asked == []
    assert sockets == []


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:2800::1%1", "", "photos.test", "127.1"])
def test_an_answer_that_is_no_address_is_refused(address: str) -> None:
    network = Network()
    assert code_of("https://photos.test/a.gif", backend=network, resolve=Names([PUBLIC, address])) == "url_refused"
    assert network.asked == []


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST."])
def test_names_of_this_machine_are_refused_by_the_systems_own_resolver(name: str, sockets: list[object]) -> None:
    assert code_of(f"http://{name}:6333/") == "url_refused"
    assert sockets == []


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "1.1.1.1", PUBLIC_V6, "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2a00:1450:4001::1"]
)
def test_what_is_public_is_connected_to(address: str) -> None:
    network = Network()
    assert code_of("https://photos.test/a.gif", backend=network, resolve=Names([address])) == "fetch_failed"
    assert network.asked == [str(read_address(address))]
    assert not is_ours(network.asked[0])


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        ("HTTP://Photos.Test", "http://photos.test/"),
        ("https://photos.test:443/a#part", "https://photos.test/a"),
        ("https://photos.test.:/a?b=c%20d&e=%2F", "https://photos.test/a?b=c%20d&e=%2F"),
        ("http://photos.test:8080?a/b?c", "http://photos.test:8080/?a/b?c"),
        ("https://Bücher.test/straße?ü", "https://xn--bcher-kva.test/stra%C3%9Fe?%C3%BC"),
        ("https://ｐｈｏｔｏｓ。test/", "https://photos.test/"),
        ("http://[2606:2800::0001]:8080/a", "http://[2606:2800::1]:8080/a"),
        ("http://[::ffff:8.8.8.8]/", "http://8.8.8.8/"),
        ("http://8.8.8.8.:80/", "http://8.8.8.8/"),
        ("http://my_photos-.test/<a>", "http://my_photos-.test/%3Ca%3E"),
    ],
)
def test_a_url_is_normalised_and_stays_so(url: str, normalised: str) -> None:
    assert Target.parse(url).url == normalised
    assert Target.parse(normalised).url == normalised


def test_a_password_is_not_said() -> None:
    with pytest.raises(UrlRefused) as caught:
        fetch("http://me:secret@photos.test/")
    assert "password" in caught.value.message
    assert "secret" not in str(caught.value.as_dict())


def test_a_private_address_is_not_said() -> None:
    with pytest.raises(UrlRefused) as caught:
        fetch("http://photos.test/", resolve=Names(["10.1.2.3"]))
    assert "10.1.2.3" not in str(caught.value.as_dict())


# What a name resolves to


def test_a_name_is_resolved_once_and_the_connection_goes_to_the_checked_address(site: Site) -> None:
    site.serve(ok(GIF))
    network, names = Network({PUBLIC: site.port}), Names([PUBLIC], ["127.0.0.1"])
    assert fetch("http://rebind.test/a.gif", backend=network, resolve=names).data == GIF
    assert names.asked == ["rebind.test"]
    assert network.asked == [PUBLIC]
    assert "Host: rebind.test\r\n" in site.heads[0]


def test_a_name_that_changes_between_redirects_is_checked_again(site: Site) -> None:
    site.serve(redirect("/again.gif"))
    network, names = Network({PUBLIC: site.port}), Names([PUBLIC], ["127.0.0.1"])
    assert code_of("http://rebind.test/a.gif", backend=network, resolve=names) == "url_refused"
    assert network.asked == [PUBLIC]
    assert len(site.heads) == 1


def test_a_name_that_changes_before_a_retry_is_checked_again(site: Site) -> None:
    site.serve(ok(b"", "503 Busy", Retry_After="1"))
    network, names = Network({PUBLIC: site.port}), Names([PUBLIC], ["169.254.169.254"])
    options = {"backend": network, "resolve": names, "sleep": lambda _: None}
    assert code_of("http://rebind.test/a.gif", **options) == "url_refused"
    assert network.asked == [PUBLIC]


def test_the_next_address_is_tried_where_one_does_not_answer(site: Site) -> None:
    site.serve(ok(GIF))
    network = Network({PUBLIC: site.port})
    assert fetch("http://photos.test/a.gif", backend=network, resolve=Names([PUBLIC_V6, PUBLIC])).data == GIF
    assert network.asked == [PUBLIC_V6, PUBLIC]
    many = Network()
    names = Names([f"8.8.8.{n}" for n in range(100)])
    assert code_of("http://photos.test/a.gif", backend=many, resolve=names) == "fetch_failed"
    assert len(many.asked) == 4


def test_a_connection_for_another_host_than_the_checked_one_is_refused() -> None:
    network = Network()
    with pytest.raises(UrlRefused):
        PinnedBackend("photos.test", [PUBLIC], Deadline(1), network).connect_tcp("other.test", 80)
    assert network.asked == []


def test_a_name_without_an_address_fails_and_a_resolver_that_hangs_ends() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert code_of("http://photos.test/", resolve=nowhere) == "fetch_failed"
    with pytest.raises(FetchFailed, match="has no address"):
        fetch("http://photos.test/", resolve=Names([]))
    released = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        released.wait(30)
        return []

    try:
        assert code_of("http://photos.test/", resolve=hanging, deadline=0.3) == "fetch_timeout"
    finally:
        released.set()


# Whom an allow-list lets through


@pytest.mark.parametrize(
    ("entry", "url", "answer"),
    [
        ("photos.internal", "http://photos.internal/", "10.0.0.5"),
        ("Photos.Internal.", "http://photos.internal:8080/", "127.0.0.1"),
        ("photos.internal:8080", "http://photos.internal:8080/", "10.0.0.5"),
        ("photos.internal:81", "http://photos.internal:81/", "10.0.0.5"),
        ("photos.test:81", "http://photos.test:81/", PUBLIC),
        ("10.0.0.0/8", "http://photos.internal/", "10.0.0.5"),
        ("10.0.0.0/8", "http://10.9.9.9/", ""),
        ("10.0.0.5", "http://[::ffff:10.0.0.5]/", ""),
        ("10.0.0.5:81", "http://10.0.0.5:81/", ""),
        ("10.0.0.5:81", "http://photos.internal:81/", "10.0.0.5"),
        ("fd00::/8", "http://[fd00::5]/", ""),
        ("[fd00::5]:81", "http://[fd00::5]:81/", ""),
        ("169.254.169.254", "http://169.254.169.254/", ""),
        ("bücher.internal", "http://xn--bcher-kva.internal/", "10.0.0.5"),
    ],
)
def test_an_entry_lets_its_host_through(entry: str, url: str, answer: str) -> None:
    network = Network()
    assert code_of(url, backend=network, resolve=Names([answer]), allow=["else.internal", entry]) == "fetch_failed"
    assert len(network.asked) == 1


@pytest.mark.parametrize(
    ("entry", "url", "answers"),
    [
        ("photos.internal", "http://x.photos.internal/", ["10.0.0.5"]),
        ("photos.internal", "http://photos.internal.evil.test/", ["10.0.0.5"]),
        ("photos.internal", "http://photos.internal:81/", ["10.0.0.5"]),
        ("photos.internal:8080", "http://photos.internal:8081/", ["10.0.0.5"]),
        ("photos.internal:8080", "http://photos.internal/", ["10.0.0.5"]),
        ("photos.internal", "http://photos.internal/", ["169.254.169.254"]),
        ("photos.internal:8080", "http://photos.internal:8080/", ["fd00:ec2::254"]),
        ("photos.internal", "http://photos.internal/", ["0.0.0.0"]),
        ("photos.internal", "http://10.0.0.5/", []),
        ("10.0.0.0/8", "http://photos.internal/", ["10.0.0.5", "127.0.0.1"]),
        ("10.0.0.0/8", "http://11.0.0.5:81/", []),
        ("10.0.0.5:8080", "http://10.0.0.5:8081/", []),
        ("127.0.0.1", "http://[::1]/", []),
        ("10.0.0.0/8", "http://[2002:a00:5::]/", []),
    ],
)
def test_an_entry_lets_nothing_else_through(entry: str, url: str, answers: list[str]) -> None:
    network = Network()
    assert code_of(url, backend=network, resolve=Names(answers), allow=[entry]) == "url_refused"
    assert network.asked == []


@pytest.mark.parametrize(
    "entry", ["10.0.0.5/8", "http://a.internal", "a b", "*.internal", "a:99999", "[::1", "[127.0.0.1]"]
)
def test_an_entry_that_is_none_is_said_at_once(entry: str) -> None:
    with pytest.raises(UsageError) as caught:
        AllowList([entry])
    assert "CROSSLENS_FETCH_ALLOW" in caught.value.remedy


def test_the_settings_say_who_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().fetch_allowed == ()
    monkeypatch.setenv("CROSSLENS_FETCH_ALLOW", " photos.internal, 10.0.0.0/8,,[::1]:81 ")
    monkeypatch.setenv("CROSSLENS_FETCH_DEADLINE", "1.5")
    assert Settings().fetch_allowed == ("photos.internal", "10.0.0.0/8", "[::1]:81")
    assert Settings().fetch_deadline == 1.5


# What a server answers


def test_an_image_is_fetched_by_its_content(site: Site) -> None:
    url = site.serve(ok(GIF, Content_Type="text/html"), "/a?b=%20c")
    fetched = fetch(url + "#part", allow=[site.host], user_agent="tester")
    assert fetched == Fetched(GIF, "image/gif", url)
    assert decode(fetched.data, max_pixels=10).width == 1
    head = site.heads[0].split("\r\n")
    assert head[0] == "GET /a?b=%20c HTTP/1.1"
    assert {f"Host: {site.host}", "Accept-Encoding: identity", "User-Agent: tester"} <= set(head)
    assert not [line for line in head if line.lower().startswith(("cookie", "authorization", "referer"))]


WHOLE = b"HTTP/1.0 200 OK\r\n\r\n" + GIF
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        raw(WHOLE),
        raw(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GIF), GIF)),
        raw(CHUNKED + b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in GIF) + b"0\r\nX-Trailer: 1\r\n\r\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE),
        ok(GIF, Content_Encoding="identity"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%smore than said" % (len(GIF), GIF)),
    ],
    ids=["HTTP/1.0", "chunked", "one by one", "informational", "identity", "more"],
)
def test_a_body_may_be_framed_in_any_way(answer: Answer, site: Site) -> None:
    assert fetch(site.serve(answer), allow=[site.host]).data == GIF


HOSTILE = {
    "empty": (ok(b""), "empty"),
    "empty without length": (raw(b"HTTP/1.0 200 OK\r\n\r\n"), "empty"),
    "a page": (ok(b"<!doctype html><title>a.gif</title>" * 9, Content_Type="image/gif"), "not_an_image"),
    "json": (ok(b'{"token": "secret"}', Content_Type="image/png"), "not_an_image"),
    "a script": (ok(b"#!/bin/sh\n"), "not_an_image"),
    "zeros": (ok(b"\0" * 5000), "not_an_image"),
    "404": (ok(GIF, "404 Not Found"), "fetch_failed"),
    "403": (ok(GIF, "403 Forbidden"), "fetch_failed"),
    "401": (ok(GIF, "401 Unauthorized", WWW_Authenticate="Basic"), "fetch_failed"),
    "500": (ok(GIF, "500 Oops"), "fetch_failed"),
    "204": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "fetch_failed"),
    "206": (ok(GIF, "206 Partial Content", Content_Range="bytes 0-41/99"), "fetch_failed"),
    "304": (raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "fetch_failed"),
    "101": (raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "fetch_failed"),
    "999": (ok(GIF, "999 Who Knows"), "fetch_failed"),
    "a redirect without a location": (ok(GIF, "302 Found"), "fetch_failed"),
    "declared too large": (ok(GIF, length=MAX_BYTES + 1), "too_large"),
    "declared huge": (ok(GIF, length=10**18), "too_large"),
    "declared absurd": (ok(GIF, length="9" * 5000), "fetch_failed"),
    "declared negative": (ok(GIF, length="-1"), "fetch_failed"),
    "declared twice": (ok(GIF, length="42\r\nContent-Length: 43"), "fetch_failed"),
    "too large": (raw(b"HTTP/1.0 200 OK\r\n\r\n" + GIF + b"\0" * MAX_BYTES), "too_large"),
    "less than declared": (ok(GIF, length=5000), "fetch_failed"),
    "a chunk that ends early": (raw(CHUNKED + b"ff\r\n" + GIF), "fetch_failed"),
    "a chunk of no size": (raw(CHUNKED + b"zz\r\n" + GIF), "fetch_failed"),
    "a chunk of negative size": (raw(CHUNKED + b"-5\r\n" + GIF), "fetch_failed"),
    "gzip": (ok(gzip.compress(GIF), Content_Encoding="gzip"), "fetch_failed"),
    "a gzip bomb": (ok(gzip.compress(bytes(10**7)), Content_Encoding="x-gzip"), "fetch_failed"),
    "gzip twice": (ok(GIF, Content_Encoding="identity\r\nContent-Encoding: gzip"), "fetch_failed"),
    "transfer gzip": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), "fetch_failed"),
    "a bare gzip": (ok(gzip.compress(GIF)), "not_an_image"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n" * 20), "fetch_failed"),
    "HTTP/0.9": (raw(GIF), "fetch_failed"),
    "HTTP/1.0 garbage": (raw(b"HTTP/1.0 garbage\r\n\r\n" + GIF), "fetch_failed"),
    "bytes that are no header": (raw(b"HTTP/1.1 200 OK\r\n\0\xff: \x01\r\n\r\n" + GIF), "fetch_failed"),
    "a header without end": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "fetch_failed"),
    "headers that break off": (raw(b"HTTP/1.1 200 OK\r\nX: "), "fetch_failed"),
    "nothing": (raw(b""), "fetch_failed"),
    "a reset": (reset, "fetch_failed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_will_not_do_has_its_error(name: str, site: Site) -> None:
    answer, code = HOSTILE[name]
    assert code_of(site.serve(answer), allow=[site.host]) == code
    assert len(site.heads) == 1


ENDLESS = {
    "body": ((b"HTTP/1.0 200 OK\r\n\r\nGIF89a", b"\0" * 65536), "too_large"),
    "chunks": ((CHUNKED + b"6\r\nGIF89a\r\n", b"1\r\n\0\r\n" * 1000), "too_large"),
    "headers": ((b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), "fetch_failed"),
    "header": ((b"HTTP/1.1 200 OK\r\nX: ", b"y" * 6000), "fetch_failed"),
    "status line": ((b"HTTP/1.1 200 ", b"O" * 6000), "fetch_failed"),
    "trailers": ((CHUNKED + b"6\r\nGIF89a\r\n0\r\n", b"X: y\r\n" * 1000), "fetch_failed"),
    "chunk extension": ((CHUNKED + b"6;", b"x" * 6000), "fetch_failed"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_ended_by_its_size(name: str, site: Site) -> None:
    parts, code = ENDLESS[name]
    assert code_of(site.serve(site.forever(*parts)), allow=[site.host], deadline=50.0) == code


SLOW = {
    "body": (b"HTTP/1.0 200 OK\r\n\r\nGIF89a", b"\0"),
    "declared body": (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\nGIF89a", b"\0"),
    "chunks": (CHUNKED, b"1\r\nG\r\n"),
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_drip_is_ended_by_the_deadline(name: str, site: Site) -> None:
    url = site.serve(site.forever(*SLOW[name], pause=0.01))
    assert code_of(url, allow=[site.host], deadline=0.4) == "fetch_timeout"


def test_interim_answers_at_full_speed_are_ended_by_the_deadline(site: Site) -> None:
    url = site.serve(site.forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000))
    assert code_of(url, allow=[site.host], deadline=0.4) == "fetch_timeout"


def test_a_server_that_never_answers_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.media.checked_requests._TIMEOUTS", dict.fromkeys(("connect", "read", "write"), 500.0))
    assert code_of(site.serve(silence), allow=[site.host], deadline=0.3) == "fetch_timeout"
    # A handshake that is never answered, too: the server waits for a head in plain text.
    url = site.url.replace("http:", "https:")
    assert code_of(url, allow=[site.host], deadline=0.3) == "fetch_timeout"


def test_a_server_that_pauses_longer_than_a_read_may_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.media.checked_requests._TIMEOUTS", {"connect": 5.0, "read": 0.2, "write": 5.0})
    assert code_of(site.serve(silence), allow=[site.host], deadline=50.0) == "fetch_timeout"


def test_a_closed_port_fails() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
    assert code_of(f"http://{host}/", allow=[host]) == "fetch_failed"


def test_a_status_is_in_the_error_and_another_services_words_are_not(site: Site) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetch(site.serve(ok(b"", "418 secret")), allow=[site.host])
    assert caught.value.as_dict()["http_status"] == 418
    assert "secret" not in str(caught.value.as_dict())
    with pytest.raises(FetchFailed) as caught:
        fetch(site.serve(raw(b"SSH-2.0-secret\r\n\r\n")), allow=[site.host])
    assert "secret" not in str(caught.value.as_dict())


def test_a_page_is_refused_before_it_is_read_to_its_end(site: Site) -> None:
    url = site.serve(site.forever(b"HTTP/1.0 200 OK\r\n\r\n" + b"<html>" + b" " * SNIFF_BYTES, b" ", pause=0.05))
    assert code_of(url, allow=[site.host], deadline=50.0) == "not_an_image"


def test_proxies_of_the_environment_are_not_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.serve(ok(GIF))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(f"{site.url}/a.gif", allow=[site.host]).data == GIF


# Where a redirect leads


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/b.gif", "b.gif", "//{host}/b.gif", "http://{host}/b.gif#x", "./c/../b.gif"])
def test_a_redirect_is_followed(status: str, location: str, site: Site) -> None:
    site.serve(ok(GIF), "/b.gif")
    # Its own body is not what was asked for: nobody waits for its end.
    head = f"HTTP/1.1 {status}\r\nLocation: {location.format(host=site.host)}\r\n\r\n".encode()
    fetched = fetch(site.serve(site.forever(head, b"\0" * 65536)), allow=[site.host])
    assert fetched == Fetched(GIF, "image/gif", f"{site.url}/b.gif")


ASTRAY = """
    file:///etc/passwd ftp://photos.test/a gopher://127.0.0.1:6379/_ data:image/gif,GIF89a mailto:a@b
    http://127.0.0.1:{trap}/ //127.0.0.1:{trap}/ http://localhost:{trap}/ http://[::1]:{trap}/
    http://2130706433:{trap}/ http://0x7f.1:{trap}/ http://[::ffff:127.0.0.1]:{trap}/ http://0:{trap}/
    http://169.254.169.254/latest/meta-data/ http://10.0.0.1/ http://photos.test:22/ http://[fe80::1]/ http://[::1
    http://me@photos.test/ http://photos.test\\@127.0.0.1:{trap}/ /\\127.0.0.1:{trap}/ http://\udcff.test/ http://:80/
""".split()
ASTRAY += ["http://exa\tmple.com/", "http://photos.test/ a", "/a\r\nLocation: /b", "/" + "a" * 9000]


@pytest.mark.parametrize("location", ASTRAY)
def test_a_redirect_leads_nowhere_that_a_url_must_not(location: str, site: Site, sockets: list[object]) -> None:
    trap = Site()
    try:
        target = location.format(trap=trap.port).encode("utf-8", "surrogateescape")
        site.serve(raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % target))
        network = Network({PUBLIC: site.port})
        names = by_name({"photos.test": PUBLIC, "localhost": "127.0.0.1"})
        assert code_of("http://photos.test/a.gif", backend=network, resolve=names) == "url_refused"
        assert network.asked == [PUBLIC]
        assert trap.heads == []
        assert {address for address in sockets if address != ("127.0.0.1", site.port)} == set()
    finally:
        before = list(sockets)
        trap.close()
        sockets[:] = before


def test_redirects_come_to_an_end(site: Site) -> None:
    url = site.serve(redirect("/a.gif"))
    assert code_of(url, allow=[site.host]) == "fetch_failed"
    assert len(site.heads) == 1 + 5
    for step in range(5):
        site.serve(redirect(f"/{step + 1}"), f"/{step}")
    site.serve(ok(GIF), "/5")
    assert fetch(f"{site.url}/0", allow=[site.host]).data == GIF


def test_redirects_share_one_deadline(site: Site) -> None:
    site.serve(redirect("/b.gif"))
    site.serve(silence, "/b.gif")
    assert code_of(f"{site.url}/a.gif", allow=[site.host], deadline=0.4) == "fetch_timeout"


def test_a_redirect_does_not_leave_https() -> None:
    secure = Target.parse("https://photos.test/a")
    assert secure.follow("//other.test/b").url == "https://other.test/b"
    with pytest.raises(UrlRefused):
        secure.follow("http://photos.test/b")
    assert Target.parse("http://photos.test/a").follow("https://photos.test/b").scheme == "https"


# When a server asks to wait


@pytest.mark.parametrize("status", ["429 Too Many", "503 Busy"])
@pytest.mark.parametrize("wait", ["0", "3", "10"])
def test_a_short_pause_is_made_once(status: str, wait: str, site: Site) -> None:
    pauses: list[float] = []
    url = site.serve(ok(b"", status, Retry_After=wait))

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        site.serve(ok(GIF))

    if wait != "0":
        assert fetch(url, allow=[site.host], sleep=sleep, deadline=60.0).data == GIF
        assert pauses == [float(wait)]
        site.serve(ok(b"", status, Retry_After=wait))
    site.heads.clear()
    assert code_of(url, allow=[site.host], sleep=pauses.append, deadline=60.0) == "fetch_failed"
    assert len(site.heads) == 2


@pytest.mark.parametrize(
    ("status", "wait"),
    [("429 Too Many", "11"), ("503 Busy", "3600"), ("503 Busy", "Fri, 31 Dec 1999 23:59:59 GMT"), ("500 Oops", "1")]
    + [("503 Busy", wait) for wait in ("-1", "1.5", "inf", "nan", "1e0", "٣", "", "9" * 5000)],
)
def test_any_other_pause_is_not_made(status: str, wait: str, site: Site) -> None:
    pauses: list[float] = []
    url = site.serve(ok(b"", status, Retry_After=wait))
    assert code_of(url, allow=[site.host], sleep=pauses.append, deadline=60.0) == "fetch_failed"
    assert pauses == []
    assert len(site.heads) == 1


def test_no_pause_is_longer_than_what_is_left(site: Site) -> None:
    pauses: list[float] = []
    url = site.serve(ok(b"", "503 Busy", Retry_After="9"))
    assert code_of(url, allow=[site.host], sleep=pauses.append, deadline=8.0) == "fetch_failed"
    assert pauses == []


# Many at once


class Gate(Network):
    """A network whose connections wait until it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def connect_tcp(self, host: str, *_: object, **__: object) -> httpcore.NetworkStream:  # type: ignore[override]
        self.asked.append(host)
        self.entered.release()
        self.opened.wait(30)
        raise httpcore.ConnectError("closed again")


def test_a_host_is_asked_by_so_many_at_once_and_forgotten_after() -> None:
    gate = Gate()
    names = by_name({"a.test": PUBLIC, "b.test": PUBLIC_V6})
    with Fetcher(max_bytes=1, per_host=2, deadline=1.0, backend=gate, resolve=names) as fetcher:

        def fail(url: str) -> None:
            with pytest.raises(FetchFailed):
                fetcher.fetch(url)

        def start(url: str) -> threading.Thread:
            thread = threading.Thread(target=fail, args=[url])
            thread.start()
            assert gate.entered.acquire(timeout=30)
            return thread

        # These two are past their deadline's watch: what they wait for is the gate.
        threads = [start("http://a.test/1"), start("http://A.test./2")]
        with pytest.raises(FetchTimeout, match=r"Too many other fetches of a\.test"):
            fetcher.fetch("http://a.test/3")
        assert gate.asked == [PUBLIC] * 2
        threads.append(start("http://b.test/1"))
        assert gate.asked == [PUBLIC, PUBLIC, PUBLIC_V6]
        gate.opened.set()
        for thread in threads:
            thread.join()
        assert fetcher._slots == {}


def test_threads_share_a_fetcher(site: Site) -> None:
    images = {f"/{n}.gif": GIF + bytes([n]) * n for n in range(12)}
    for path, content in images.items():
        site.serve(ok(content), path)
    got: dict[str, bytes] = {}
    with Fetcher(max_bytes=MAX_BYTES, allow=[site.host], per_host=3) as fetcher:

        def one(path: str) -> None:
            got[path] = fetcher.fetch(site.url + path).data

        threads = [threading.Thread(target=one, args=[path]) for path in images]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == images


# Encryption


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for photos.test that vouches for itself, with its key."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "photos.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    names = ("-subj", "/CN=photos.test", "-addext", "subjectAltName=DNS:photos.test")
    command = [openssl, "req", "-x509", *curve, "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", f"{path}.key", "-out", path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.key").read_bytes())
    return path


@dataclass
class Secure:
    site: Site
    asked_for: list[str | None]
    """The names that clients sent in the handshake (SNI)."""


@pytest.fixture
def secure(certificate: Path, sockets: list[object]) -> Iterator[Secure]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = Secure(Site(tls=context), [])
    context.sni_callback = lambda _socket, name, _context: secure.asked_for.append(name)
    secure.site.serve(ok(GIF))
    yield secure
    secure.site.close()


def test_tls_goes_by_the_name_and_the_connection_by_the_address(
    secure: Secure, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    network = Network({PUBLIC: secure.site.port})
    names = Names([PUBLIC], ["127.0.0.1"])
    assert fetch("https://photos.test/a.gif", backend=network, resolve=names).url == "https://photos.test/a.gif"
    assert network.asked == [PUBLIC]
    assert secure.asked_for == ["photos.test"]
    assert "Host: photos.test\r\n" in secure.site.heads[0]


@pytest.mark.parametrize("url", ["https://other.test/a.gif", f"https://{PUBLIC}/a.gif"])
def test_a_certificate_of_another_host_will_not_do(
    url: str, secure: Secure, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    network = Network({PUBLIC: secure.site.port})
    assert code_of(url, backend=network, resolve=Names([PUBLIC])) == "fetch_failed"
    assert secure.site.heads == []


def test_a_certificate_that_nobody_vouches_for_will_not_do(secure: Secure) -> None:
    network = Network({PUBLIC: secure.site.port})
    with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
        fetch("https://photos.test/a.gif", backend=network, resolve=Names([PUBLIC]))
    assert secure.site.heads == []


def test_a_redirect_from_https_to_http_is_refused(
    secure: Secure, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    secure.site.serve(redirect("http://photos.test/b.gif"))
    network = Network({PUBLIC: secure.site.port})
    assert code_of("https://photos.test/a.gif", backend=network, resolve=Names([PUBLIC])) == "url_refused"
    assert network.asked == [PUBLIC]


# Anything at all

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.sampled_from(NOTATIONS + PRIVATE),
    st.text(min_size=1, max_size=20),
    st.from_regex(r"[0-9a-fx０-９.。:%\[\]]{1,20}", fullmatch=True),
)
URLS = st.one_of(
    st.text(),
    st.tuples(
        st.sampled_from(["http://", "https://", "HTTP://", "http:/", "//", "http:\\\\", "ftp://", " http://"]),
        st.sampled_from(["", "", "", "", "me@", "me:x@", "photos.test\\@", "photos.test#@"]),
        HOSTS,
        st.sampled_from(["", "", ":80", ":8080", ":22", ":", ":x"]),
        st.one_of(st.just(""), st.just("/a.gif"), st.text(max_size=10)),
    ).map("".join),
)


@given(url=URLS, answers=st.lists(st.one_of(st.ip_addresses().map(str), st.sampled_from(PRIVATE)), max_size=3))
@example("http://photos.test/", ["127.0.0.1"])
@example("http://photos.test/", [PUBLIC, "::ffff:10.0.0.1"])
@settings(max_examples=1000, deadline=None)
def test_no_url_and_no_answer_lead_to_a_private_address(url: str, answers: list[str]) -> None:
    network, seen = Network(), []
    _connects.append(seen)
    try:
        code = code_of(url, backend=network, resolve=Names(answers), deadline=30.0)
    finally:
        _connects.remove(seen)
    assert code in {"url_refused", "fetch_failed"}
    assert not [address for address in network.asked if is_ours(address)]
    assert not seen


@given(address=st.ip_addresses())
@settings(max_examples=2000, deadline=None)
def test_public_is_never_ours(address: object) -> None:
    read = read_address(str(address))
    assert read is not None
    assert not (is_public(read) and is_ours(str(read)))


# Several at once


def fetch_all(urls: list[str], **options: object) -> list[Fetched | MediaError]:
    with Fetcher(**{"max_bytes": MAX_BYTES, "deadline": 10.0, **options}) as fetcher:  # type: ignore[arg-type]
        return fetcher.fetch_all(urls)


def codes(outcomes: list[Fetched | MediaError]) -> list[str]:
    return [each.code if isinstance(each, MediaError) else each.media_type for each in outcomes]


def test_several_urls_each_give_content_or_an_error_in_their_order(site: Site) -> None:
    good, gone = site.serve(ok(GIF)), site.url + "/gone"
    refused = "http://127.0.0.1:1/"
    outcomes = fetch_all([good, gone, refused, "no url", good], allow=[site.host])
    assert codes(outcomes) == ["image/gif", "fetch_failed", "url_refused", "url_refused", "image/gif"]
    assert [head.split()[1] for head in site.heads].count("/a.gif") == 1, "the same URL is fetched once"
    assert fetch_all([]) == []


def test_several_urls_are_fetched_at_once(site: Site) -> None:
    together = threading.Barrier(4, timeout=10)

    def meet(connection: socket.socket) -> None:
        together.wait()
        ok(GIF)(connection)

    urls = [site.serve(meet, f"/{number}.gif") for number in range(4)]
    assert codes(fetch_all(urls, allow=[site.host], per_host=4)) == ["image/gif"] * 4


def test_several_urls_share_one_deadline(site: Site) -> None:
    """Two at a time go to one host; with a deadline each, all twelve would be asked for."""
    urls = [site.serve(silence, f"/{number}.gif") for number in range(12)]
    assert codes(fetch_all(urls, allow=[site.host], deadline=0.5)) == ["fetch_timeout"] * 12
    assert len(site.heads) == 2


def test_several_urls_share_one_cap(site: Site) -> None:
    body = GIF + bytes(MAX_BYTES // 2)
    urls = [site.serve(ok(body), f"/{number}.gif") for number in range(3)]
    outcomes = fetch_all(urls, allow=[site.host])
    assert sorted(codes(outcomes)) == ["image/gif", "too_large", "too_large"]
    assert codes(fetch_all(urls, allow=[site.host], max_bytes=4 * MAX_BYTES)) == ["image/gif"] * 3
    undeclared = raw(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    streamed = [site.serve(undeclared, f"/s{number}.gif") for number in range(3)]
    assert codes(fetch_all(streamed, allow=[site.host])).count("too_large") >= 2
    with Fetcher(max_bytes=MAX_BYTES, allow=[site.host]) as fetcher:
        assert [fetcher.fetch(url).media_type for url in urls] == ["image/gif"] * 3, (
            "one after another each has its own"
        )
