"""Bundles from elsewhere: installed when whole and right, and nothing is left of those that are not."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import (
    CrosslensError,
    DownloadFailed,
    GoldenMismatch,
    InvalidBundle,
    InvalidName,
    ModelError,
    SourceNotFound,
    UnknownRecipe,
    UsageError,
)
from indexer.models.bundle import find_bundle, list_bundles, load_bundle
from indexer.models.encoder import Encoder
from indexer.models.pull import pull
from indexer.models.rerank.loading import load_reranker
from indexer.settings import Settings
from tests.bundles import make_bundle
from tests.rerankers import make_reranker

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A web server that serves a folder of bundles, but for the paths that have an answer of their own."""

    folder: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def bundle(self) -> Path:
        """The folder of the bundle that it serves, to break."""
        return self.folder / "colours"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        path = handler.path.replace("/org/name/resolve/v1/", "/colours/")
        if answer := self.answers.get(path):
            answer(handler)
        elif (file := self.folder / path.lstrip("/")).is_file():
            send(handler, 200, file.read_bytes())
        else:
            send(handler, 404, b"nothing here")


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(length or len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def redirect(location: str) -> Answer:
    return lambda handler: send(handler, 302, b"", Location=location)


def endless(handler: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
    """A body until the client hangs up."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"\0" * 65536)
    except OSError:
        handler.close_connection = True


@pytest.fixture
def site(tmp_path: Path, colours: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    shutil.copytree(colours, site.bundle)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.serve(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def digest(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def change_manifest(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def list_file(bundle: Path, name: str, sha256: str = "0" * 64, size: int = 0) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    change_manifest(bundle, files={**files, name: {"sha256": sha256, "size": size}})


def left(settings: Settings) -> list[str]:
    """What is in the folder of models, hidden or not."""
    return sorted(path.name for path in settings.models_folder.iterdir()) if settings.models_folder.is_dir() else []


def pull_site(site: Site, settings: Settings, **options: object) -> CrosslensError | None:
    """Pull what the site serves, pinned as it is served; give the error."""
    try:
        pull(f"{site.url}/colours", settings=settings, sha256=digest(site.bundle), **options)  # type: ignore[arg-type]
    except CrosslensError as error:
        return error
    return None


def test_a_folder_needs_no_sha256(colours: Path, settings: Settings) -> None:
    pulled = pull(str(colours), settings=settings, sha256=None)
    assert pulled.folder == settings.models_folder / "colours"
    assert not pulled.already_there
    assert (pulled.folder / "manifest.json").read_bytes() == (colours / "manifest.json").read_bytes()
    found = find_bundle("colours", settings)
    assert found.manifest == pulled.manifest
    assert Encoder(found).encode_texts(["red"]).vectors.shape == (1, 8)
    assert left(settings) == ["colours"]


def test_a_url_is_fetched_once(site: Site, settings: Settings) -> None:
    seen: list[tuple[int, int]] = []
    visible: list[str] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        visible.extend(bundle.manifest.name for bundle in list_bundles(settings))

    assert pull_site(site, settings, progress=progress) is None
    total = sum(file.size for file in load_bundle(site.bundle).manifest.files.values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert set(visible) == {"bridge"}, "half a bundle must not be listed"
    assert left(settings) == ["colours"]

    site.asked.clear()
    again = pull(f"{site.url}/colours/manifest.json", settings=settings, sha256=digest(site.bundle).upper())
    assert again.already_there
    assert again.folder == settings.models_folder / "colours"
    assert site.asked == ["/colours/manifest.json"]


def test_a_hub_repository_is_a_folder_of_its_endpoint(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site.url + "/")
    assert not pull("hf:org/name@v1", settings=settings, sha256=digest(site.bundle)).already_there
    assert {path.rpartition("/")[0] for path in site.asked} == {
        "/org/name/resolve/v1",
        "/org/name/resolve/v1/golden",
    }
    with pytest.raises(DownloadFailed, match="answers 404"):
        pull("hf:org/name@a/b", settings=settings, sha256=digest(site.bundle))
    assert site.asked[-1] == "/org/name/resolve/a%2Fb/manifest.json"
    with pytest.raises(DownloadFailed, match="answers 404"):
        pull("hf:org/name", settings=settings, sha256=digest(site.bundle))
    assert site.asked[-1] == "/org/name/resolve/main/manifest.json"


def test_what_is_remote_must_be_pinned(site: Site, settings: Settings) -> None:
    with pytest.raises(UsageError, match="Without a sha256") as caught:
        pull(f"{site.url}/colours", settings=settings, sha256=None)
    command = f"crosslens models pull {site.url}/colours --sha256 {digest(site.bundle)}"
    assert caught.value.remedy.endswith(command)
    assert caught.value.as_dict()["sha256"] == digest(site.bundle)
    with pytest.raises(InvalidBundle, match="not the pinned one"):
        pull(f"{site.url}/colours", settings=settings, sha256="0" * 64)
    with pytest.raises(InvalidBundle, match="not the pinned one"):
        pull(str(site.bundle), settings=settings, sha256="0" * 64)
    with pytest.raises(UsageError, match="is no sha256"):
        pull(f"{site.url}/colours", settings=settings, sha256="abc")
    assert site.asked == ["/colours/manifest.json"] * 2
    assert left(settings) == []


def changed_file(site: Site) -> None:
    content = bytearray((site.bundle / "image.onnx").read_bytes())
    content[-1] ^= 1
    (site.bundle / "image.onnx").write_bytes(content)


def longer_file(site: Site) -> None:
    (site.bundle / "text.onnx").write_bytes((site.bundle / "text.onnx").read_bytes() + b"more")


def shorter_file(site: Site) -> None:
    (site.bundle / "text.onnx").write_bytes((site.bundle / "text.onnx").read_bytes()[:-1])


def endless_file(site: Site) -> None:
    site.answers["/colours/text.onnx"] = endless


def endless_manifest(site: Site) -> None:
    site.answers["/colours/manifest.json"] = endless


def no_manifest(site: Site) -> None:
    (site.bundle / "manifest.json").write_text("<html>Sign in</html>")


def too_much(site: Site) -> None:
    list_file(site.bundle, "huge.bin", size=20 * 10**9)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (changed_file, "image.onnx .* is not the file that was published"),
        (longer_file, "text.onnx .* is longer"),
        (shorter_file, "text.onnx .* is not the file that was published"),
        (endless_file, "text.onnx .* is longer"),
        (endless_manifest, "manifest.json .* is longer"),
        (no_manifest, "Invalid JSON"),
        (too_much, "20.0 GB; 20 is the most"),
    ],
)
def test_what_is_not_as_published_leaves_nothing(
    harm: Callable[[Site], None], said: str, site: Site, settings: Settings
) -> None:
    harm(site)
    with pytest.raises(InvalidBundle, match=said) as caught:
        pull(f"{site.url}/colours", settings=settings, sha256=digest(site.bundle))
    assert caught.value.remedy
    assert left(settings) == []


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "./image.onnx", "golden//x", "manifest.json", "a\0b", "\n"],
)
def test_a_file_name_stays_inside_its_folder(name: str, site: Site, settings: Settings) -> None:
    list_file(site.bundle, name, hashlib.sha256(b"").hexdigest())
    assert isinstance(pull_site(site, settings), InvalidBundle)
    assert site.asked == ["/colours/manifest.json"], "it was asked for"
    assert left(settings) == []


def test_a_newer_recipe_is_not_installed(site: Site, settings: Settings) -> None:
    change_manifest(site.bundle, format=2)
    error = pull_site(site, settings)
    assert isinstance(error, UnknownRecipe)
    assert error.message.startswith(f"{site.url}/colours/manifest.json: format")
    assert "Upgrade" in error.remedy
    assert left(settings) == []


def test_wrong_vectors_are_not_installed(site: Site, settings: Settings) -> None:
    with np.load(site.bundle / "golden.npz") as arrays:
        turned = {name: np.roll(vectors, 1, axis=1) for name, vectors in arrays.items()}
    np.savez(site.bundle / "golden.npz", **turned)  # type: ignore[arg-type]
    content = (site.bundle / "golden.npz").read_bytes()
    list_file(site.bundle, "golden.npz", hashlib.sha256(content).hexdigest(), len(content))
    assert isinstance(pull_site(site, settings), GoldenMismatch)
    assert left(settings) == []


def test_what_lies_on_the_disk_is_what_was_published(site: Site, settings: Settings) -> None:
    for name in ("NOTICE", "THANKS"):
        (site.bundle / name).write_bytes(b"thanks")
        list_file(site.bundle, name, hashlib.sha256(b"thanks").hexdigest(), 6)

    def damage(done: int, total: int) -> None:
        if done == total:
            (settings.models_folder / ".colours.pulling" / "NOTICE").write_bytes(b"thinks")

    error = pull_site(site, settings, progress=damage)
    assert isinstance(error, InvalidBundle)
    assert "NOTICE" in error.message
    assert left(settings) == []


def test_a_server_that_breaks_off_is_said(site: Site, settings: Settings) -> None:
    whole = (site.bundle / "text.onnx").read_bytes()
    site.answers["/colours/text.onnx"] = lambda handler: send(handler, 200, whole[:100], length=len(whole))
    error = pull_site(site, settings)
    assert isinstance(error, DownloadFailed)
    assert "text.onnx could not be fetched" in error.message
    assert left(settings) == []


@pytest.mark.parametrize(
    "location",
    [
        "http://example.com/text.onnx",
        "http://10.0.0.1/text.onnx",
        "https://10.0.0.1/text.onnx",
        "https://[fe80::1]/text.onnx",
        "https://localhost/text.onnx",
        "https://127.1/text.onnx",
        "ftp://127.0.0.1/text.onnx",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_leads_to_https_alone(location: str, site: Site, settings: Settings) -> None:
    site.answers["/colours/text.onnx"] = redirect(location)
    error = pull_site(site, settings)
    assert isinstance(error, DownloadFailed)
    assert "where it must not" in error.message
    assert left(settings) == []


def test_redirects_on_one_machine_are_followed_but_not_for_ever(site: Site, settings: Settings) -> None:
    shutil.move(site.bundle / "text.onnx", site.folder / "elsewhere.onnx")
    # A redirect's own body is not what was asked for: nobody waits for its end.
    site.answers["/colours/text.onnx"] = lambda handler: endless(handler, 302, Location="/elsewhere.onnx")
    assert pull_site(site, settings) is None
    site.answers["/colours/text.onnx"] = redirect("/colours/text.onnx")
    error = pull_site(site, settings, force=True)
    assert isinstance(error, DownloadFailed)
    assert site.asked.count("/colours/text.onnx") == 1 + 6
    assert left(settings) == ["colours"], "the installed one stays"


def test_without_a_network_the_remedy_is_a_folder(settings: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/colours"
    with pytest.raises(DownloadFailed, match=r"could not be fetched: .*refused") as caught:
        pull(url, settings=settings, sha256="0" * 64)
    assert "crosslens models pull FOLDER" in caught.value.remedy
    assert left(settings) == []


@pytest.mark.parametrize(
    "source",
    ["http://example.com/colours", "ftp://127.0.0.1/colours", "https://", "https://[::1", "http://x:y/", "x://"],
)
def test_what_is_not_encrypted_is_not_asked_for(source: str, settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        pull(source, settings=settings, sha256="0" * 64)
    assert "https://" in caught.value.remedy


def test_a_password_in_a_url_is_not_said(settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        pull("http://me:secret@example.com/colours", settings=settings, sha256="0" * 64)
    assert "secret" not in caught.value.message


def test_known_models_are_made_and_the_rest_is_not_found(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        pull("tinyclip-8m", settings=settings, sha256=None)
    assert caught.value.remedy == "crosslens models export tinyclip-8m"
    with pytest.raises(SourceNotFound):
        pull(str(tmp_path / "nothing"), settings=settings, sha256=None)
    with pytest.raises(SourceNotFound):
        pull("hf:../name", settings=settings, sha256=None)
    with pytest.raises(InvalidBundle, match=r"has no file manifest\.json"):
        pull(str(tmp_path), settings=settings, sha256=None)


def test_another_bundle_of_the_name_is_replaced_by_force_alone(
    colours: Path, tmp_path: Path, settings: Settings
) -> None:
    other = make_bundle(tmp_path / "other", twist=0.5)
    ours = pull(str(colours), settings=settings, sha256=None)
    with pytest.raises(UsageError, match="is another bundle") as caught:
        pull(str(other), settings=settings, sha256=None)
    assert "--force" in caught.value.remedy
    assert load_bundle(ours.folder).manifest == ours.manifest

    beside = pull(str(other), settings=settings, sha256=None, name="colours.2")
    assert find_bundle("colours.2", settings).manifest.name == "colours.2"
    assert beside.manifest.fingerprint == load_bundle(other).manifest.fingerprint != ours.manifest.fingerprint
    with pytest.raises(InvalidName):
        pull(str(other), settings=settings, sha256=None, name="../evil")

    replaced = pull(str(other), settings=settings, sha256=None, force=True)
    assert load_bundle(replaced.folder).manifest == load_bundle(other).manifest
    assert left(settings) == ["colours", "colours.2"]


def test_a_failure_by_force_leaves_the_installed_one(colours: Path, site: Site, settings: Settings) -> None:
    ours = pull(str(colours), settings=settings, sha256=None)
    changed_file(site)
    assert isinstance(pull_site(site, settings, force=True), InvalidBundle)
    load_bundle(ours.folder).verify_files()
    assert left(settings) == ["colours"]


def test_the_built_in_bundle_is_not_put_in_the_shade(tmp_path: Path, settings: Settings) -> None:
    impostor = make_bundle(tmp_path, name="bridge")
    with pytest.raises(UsageError, match="is another bundle"):
        pull(str(impostor), settings=settings, sha256=None)
    assert left(settings) == []


def test_a_damaged_copy_is_repaired(colours: Path, settings: Settings) -> None:
    ours = pull(str(colours), settings=settings, sha256=None)
    (ours.folder / "text.onnx").write_bytes(b"damaged")
    assert not pull(str(colours), settings=settings, sha256=None).already_there
    load_bundle(ours.folder).verify_files()
    assert left(settings) == ["colours"]


def test_one_pull_at_a_time_and_what_a_killed_one_left_is_cleared(colours: Path, settings: Settings) -> None:
    staging = settings.models_folder / ".colours.pulling"
    (staging / "golden").mkdir(parents=True)
    (staging / "text.onnx").write_bytes(b"half")
    held = os.open(staging, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="Another process"):
        pull(str(colours), settings=settings, sha256=None)
    assert (staging / "text.onnx").exists()
    os.close(held)
    pull(str(colours), settings=settings, sha256=None)
    assert left(settings) == ["colours"]


def test_an_interrupted_pull_leaves_nothing(colours: Path, settings: Settings) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(str(colours), settings=settings, sha256=None, progress=interrupt)
    assert left(settings) == []


def test_a_folder_whose_files_are_not_files_is_refused(colours: Path, tmp_path: Path, settings: Settings) -> None:
    own = Path(shutil.copytree(colours, tmp_path / "own"))
    (own / "text.onnx").unlink()
    os.mkfifo(own / "text.onnx")
    with pytest.raises(InvalidBundle, match=r"has no file text\.onnx"):
        pull(str(own), settings=settings, sha256=None)
    (own / "text.onnx").unlink()
    (own / "text.onnx").symlink_to(colours / "text.onnx")
    with pytest.raises(InvalidBundle, match="leads out"):
        pull(str(own), settings=settings, sha256=None)
    assert left(settings) == []


def test_a_data_folder_that_cannot_be_written_is_said(colours: Path, settings: Settings) -> None:
    settings.data.mkdir()
    settings.models_folder.write_text("in the way")
    with pytest.raises(ModelError, match="cannot be written"):
        pull(str(colours), settings=settings, sha256=None)


def test_rerankers_are_pulled_likewise(tmp_path: Path, settings: Settings) -> None:
    published = make_reranker(tmp_path / "site")
    pulled = pull(str(published), settings=settings, sha256=None, name="mine")
    assert load_reranker(settings, "mine").fingerprint == pulled.manifest.fingerprint
    assert pull(str(published), settings=settings, sha256=None, name="mine").already_there
    with np.load(published / "golden.npz") as golden:
        np.savez(published / "golden.npz", **{name: golden[name] + 1 for name in golden.files})
    content = (published / "golden.npz").read_bytes()
    list_file(published, "golden.npz", hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(GoldenMismatch):
        pull(str(published), settings=settings, sha256=None)
    assert left(settings) == ["mine"]
