"""The search page in a real browser, on a real server: what a person sees, does, and can share."""

import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright
from pydantic import SecretStr

from indexer.settings import Settings
from search_api.server import serve
from tests.bundles import COLOURS, picture
from tests.rerankers import halves, make_reranker

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine's PATH")

ADMIN = "0123456789abcdef0123456789abcdef"
HOSTILE = '<img src=x onerror="window.owned=1">'
EACH = 5
SIDES = [(left, right) for left in ("red", "green", "blue") for right in ("red", "green", "blue") if left != right]
POLICY = """
name: notes
categories:
  - {name: hidden, action: block, threshold: 0.5, detectors: [{type: text, words: [hidden], fields: [note]}]}
  - {name: veiled, action: blur, threshold: 0.5, detectors: [{type: text, words: [veiled], fields: [note]}]}
"""


@dataclass(frozen=True)
class Site:
    """A server and how to fill it."""

    url: str
    key: str | None = None

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> Any:
        token = key or self.key
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        answer = httpx.request(method, f"{self.url}/v1{path}", headers=headers, timeout=60, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def upload(self, collection: str, files: dict[str, bytes], items: list[dict[str, Any]]) -> None:
        sent = [("file", (name, content)) for name, content in files.items()]
        self.ask("POST", f"/collections/{collection}/items", data={"request": json.dumps({"items": items})}, files=sent)


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The API of a data folder on a free port, as `crosslens serve` runs it."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(settings, listener, stopping))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopping.set()
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[Site]:
    """A server without keys, with a reranker: colours, halves, what is hostile, and a collection with nothing in it."""
    settings = Settings(data=tmp_path_factory.mktemp("page") / "data", model=str(colours), workers=0)
    settings.models_folder.mkdir(parents=True)
    make_reranker(settings.models_folder)
    with served(settings) as url:
        site = Site(url)
        files = {f"{colour}-{number}": picture(colour, mark=number) for colour in COLOURS for number in range(EACH)}
        items: list[dict[str, Any]] = [
            {"file": name, "id": name, "payload": {"tags": [name[:-2], "plain colour"], "year": 2018 + int(name[-1])}}
            for name in files
        ]
        site.upload("media", files, [*items, {"text": "so much blue", "id": "note"}])
        payload = {"caption": HOSTILE, "tags": [HOSTILE, 'a "b" \\ c'], HOSTILE: {"deep": HOSTILE}}
        hostile = {"red.png": picture("red")}
        site.upload("hostile", hostile, [{"file": "red.png", "id": HOSTILE, "payload": payload}, {"text": HOSTILE}])
        sides = {"-".join(pair): halves(*pair) for pair in SIDES}
        site.upload("halves", sides, [{"file": name, "id": name} for name in sides])
        site.ask("PUT", "/collections/empty")
        yield site


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[Site]:
    """A server that demands keys, without a reranker, whose collection withholds some."""
    settings = Settings(
        data=tmp_path_factory.mktemp("guarded") / "data", model=str(colours), workers=0, admin_key=SecretStr(ADMIN)
    )
    with served(settings) as url:
        site = Site(url, ADMIN)
        site.ask("PUT", "/collections/media")
        headers = {"Content-Type": "application/yaml"}
        site.ask("PUT", "/collections/media/policy", content=POLICY, headers=headers)
        notes = {"red": "hidden", "green": "veiled", "blue": "plain"}
        files = {colour: picture(colour) for colour in notes}
        site.upload("media", files, [{"file": each, "id": each, "payload": {"note": notes[each]}} for each in notes])
        site.upload("unjudged", {"red": files["red"]}, [{"file": "red"}])
        site.ask("PUT", "/collections/unjudged/policy", content=POLICY, headers=headers)
        yield site


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab, which must load nothing from elsewhere, break no policy, and run into no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"defect: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    here = re.match(r"https?://[^/]+/", page.url)
    context.close()
    assert not [each for each in said if "Security Policy" in each or each.startswith("defect")]
    assert here is not None
    assert not [each for each in asked if not each.startswith((here[0], "blob:", "data:"))]


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")


def names(page: Page) -> list[str]:
    return page.locator(".card .name").all_text_contents()


def first(page: Page) -> Any:
    return page.locator(".card .name").first


def enter_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Go on").click()


def test_a_search_in_words_shows_the_best_first_and_says_what_it_did(page: Page, site: Site) -> None:
    page.goto(site.url)
    expect(page.locator("#status")).to_contain_text("first 24 results")
    page.get_by_role("radio", name="Pictures").check()
    search(page, "a photo of green")
    expect(first(page)).to_have_text(re.compile("green"))
    assert [name[:-2] for name in names(page)[:EACH]] == ["green"] * EACH
    found = page.locator("#status").text_content() or ""
    assert re.fullmatch(r"The best 24 results · [\d.]+ ms · colours · approximate", found)
    shares = [int(each) for each in re.findall(r"(\d+) %", " ".join(page.locator(".relevance").all_inner_texts()))]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 50
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 60)
    assert page.title() == "a photo of green · Crosslens"
    search(page, "yellow")
    expect(first(page)).to_have_text(re.compile("yellow"))
    page.get_by_label("But not").fill("red")
    page.keyboard.press("Enter")
    expect(first(page)).to_have_text(re.compile("green"))


def test_more_pages_come_without_repeats(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red&kind=image")
    expect(page.locator(".card")).to_have_count(24)
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.locator(".card")).to_have_count(len(COLOURS) * EACH)
    assert len(set(names(page))) == len(COLOURS) * EACH
    expect(page.get_by_role("button", name="More", exact=True)).to_be_hidden()
    expect(page.locator(".card .open").nth(24)).to_be_focused()


def test_a_list_whose_life_is_over_is_looked_for_anew(page: Page, site: Site) -> None:
    def spoil(route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        route.continue_(post_data=json.dumps(body | {"cursor": "b3Zlcg=="} if "cursor" in body else body))

    page.route("**/search", spoil)
    page.goto(f"{site.url}/?q=red")
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.get_by_label("Warnings")).to_contain_text("looked for anew")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator("#problem")).to_be_empty()


def test_a_picture_is_searched_with_by_file_drop_and_paste(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?kind=image")
    given: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": picture("blue", mark=40)}
    page.get_by_label("Search with a picture").set_input_files(given)
    expect(first(page)).to_have_text(re.compile("blue"))
    page.get_by_role("button", name="Search without your picture").click()
    expect(page.locator("#terms li")).to_have_count(0)
    bring(page, "drop", picture("yellow", mark=41))
    expect(first(page)).to_have_text(re.compile("yellow"))
    bring(page, "paste", picture("purple", mark=41))
    expect(first(page)).to_have_text(re.compile("white"))  # what both are near to
    expect(page.locator("#terms li")).to_have_count(2)
    search(page, "white")  # words and pictures at once
    expect(page.locator("#terms li")).to_have_count(2)
    expect(page.locator("#status")).to_contain_text("best")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.locator("#terms li")).to_have_count(2)


def bring(page: Page, event: str, content: bytes) -> None:
    """Drop or paste a file."""
    page.evaluate(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "p.png", { type: "image/png" }));
          const made = name === "drop" ? new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true })
                                       : new ClipboardEvent(name, { clipboardData: transfer, bubbles: true });
          document.body.dispatchEvent(made);
        }""",
        [event, list(content)],
    )


def test_what_is_no_picture_is_told_with_what_to_do(page: Page, site: Site) -> None:
    page.goto(site.url)
    given: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.get_by_label("Search with a picture").set_input_files(given)
    expect(page.locator("#problem .remedy")).not_to_be_empty()
    expect(page.locator(".card")).to_have_count(0)


def test_more_like_a_result_and_back_again(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red&kind=image")
    expect(first(page)).to_have_text(re.compile("red"))
    before = names(page)
    other = next(name for name in before if not name.startswith("red"))
    page.get_by_role("button", name=f"More like {other}").dispatch_event("click")
    expect(first(page)).to_have_text(re.compile(other[:-2]))
    assert other not in names(page)
    assert f"like={other}" in page.url
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.go_back()
    expect(first(page)).to_have_text(re.compile("red"))
    expect(page.get_by_role("searchbox")).to_have_value("red")
    assert names(page) == before
    page.go_forward()
    expect(first(page)).to_have_text(re.compile(other[:-2]))
    page.get_by_role("button", name=f"Search without {other}").click()
    expect(page.locator("#status")).to_contain_text("first 24")


def test_an_address_can_be_shared(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red&filter=year%3A2019&kind=image&least=0.5&diverse=1")
    expect(first(page)).to_have_text("red-1")
    expect(page.get_by_label("Only where")).to_have_value("year:2019")
    expect(page.get_by_role("radio", name="Pictures")).to_be_checked()
    expect(page.get_by_role("slider")).to_have_value("0.5")
    expect(page.get_by_label("Varied results")).to_be_checked()
    expect(page.locator(".card")).to_have_count(1)
    page.goto(f"{site.url}/?q=a+cat&kind=image&least=0.95")
    expect(page.get_by_role("heading", name="Nothing here matches")).to_be_visible()
    expect(page.locator("#empty")).to_contain_text("lower the relevance")


def test_a_wrong_filter_is_told_beside_it_with_its_remedy(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red")
    box = page.get_by_label("Only where")
    box.fill("year>=soon")
    box.press("Enter")
    expect(page.locator("#filter-problem")).to_contain_text("The filter compares year, a number, with 'soon'")
    expect(page.locator("#filter-problem .remedy")).to_contain_text("year>=2020")
    expect(box).to_have_attribute("aria-invalid", "true")
    box.fill("year>=2022")
    box.press("Enter")
    expect(first(page)).to_have_text("red-4")
    expect(page.locator("#filter-problem")).to_be_empty()
    expect(box).not_to_have_attribute("aria-invalid", "true")


def test_who_types_before_the_page_is_ready_loses_nothing(page: Page, site: Site) -> None:
    held: list[Route] = []
    page.route("**/v1/collections", lambda route: held.append(route))  # noqa: PLW0108  it takes no built-in method
    with page.expect_request("**/v1/collections"):
        page.goto(f"{site.url}/?kind=image&filter=year%3A2019", wait_until="commit")
    expect(page.get_by_label("Only where")).to_have_value("year:2019")
    search(page, "blue")
    page.get_by_role("searchbox").fill("blue and")
    held[0].continue_()
    expect(first(page)).to_have_text("blue-1")
    expect(page.get_by_role("searchbox")).to_have_value("blue and")
    assert "q=blue&" in page.url


def test_facets_count_and_filter(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red")
    blue = page.locator("#facets").get_by_role("button", name=re.compile("blue"))
    expect(blue).to_have_text(f"blue{EACH}")
    blue.click()
    expect(page.get_by_label("Only where")).to_have_value("tags:blue")
    expect(page.locator(".card")).to_have_count(EACH)
    page.locator("#facets").get_by_role("button", name=re.compile("plain colour")).click()
    expect(page.get_by_label("Only where")).to_have_value('tags:blue tags:"plain colour"')
    chosen = page.locator("#facets [aria-pressed=true]")
    expect(chosen).to_have_count(2)
    chosen.filter(has_text="blue").click()
    expect(page.get_by_label("Only where")).to_have_value('tags:"plain colour"')
    expect(page.locator(".card")).to_have_count(24)


def test_a_result_is_seen_in_full_and_its_neighbours_by_the_keyboard(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red&kind=image")
    page.locator(".card .open").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(names(page)[0])
    expect(dialog).to_contain_text("60 × 40")
    expect(dialog.locator("#viewer-payload")).to_contain_text("red, plain colour")
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading")).to_have_text(names(page)[1])
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download original").click()
    assert download.value.path().read_bytes() == picture("red", mark=int(names(page)[1][-1]))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".card .open").nth(1)).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_an_empty_collection_says_the_next_step(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_label("Collection").select_option("empty")
    expect(page.get_by_text("crosslens ingest FOLDER --collection empty")).to_be_visible()
    assert "collection=empty" in page.url


def test_nothing_from_the_server_becomes_html(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?collection=hostile&q=red")
    expect(page.locator(".card")).to_have_count(2)
    assert HOSTILE in names(page)
    expect(page.locator("blockquote")).to_have_text(HOSTILE)
    page.locator(".card .open").first.click()
    expect(page.locator("#viewer-payload")).to_contain_text(json.dumps({"deep": HOSTILE}, separators=(",", ":")))
    page.keyboard.press("Escape")
    page.locator("#facets").get_by_role("button", name=re.compile("b")).last.click()
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("button", name=f"More like {HOSTILE}").dispatch_event("click")
    expect(page.locator("#terms li")).to_have_count(1)
    assert page.locator("[onerror]").count() == 0
    page.goto(f"{site.url}/?collection={HOSTILE}&q={HOSTILE}&filter={HOSTILE}&like={HOSTILE}&kind={HOSTILE}")
    expect(page.locator(".problem:not(:empty)").first).to_be_visible()
    assert page.evaluate("window.owned") is None
    assert page.locator("[onerror]").count() == 0


def test_a_reranker_is_offered_where_there_is_one(page: Page, site: Site) -> None:
    # Opens the model, for which the first to ask is not kept waiting.
    patient = {"query": [{"text": "blue left"}], "rerank": {"deadline_ms": 60_000}}
    assert site.ask("POST", "/collections/halves/search", json=patient)["reranked"] == len(SIDES)
    page.goto(f"{site.url}/?collection=halves&q=blue+left&kind=image&diverse=1")
    expect(page.locator(".card")).to_have_count(len(SIDES))
    page.get_by_label("Rerank the best").check()
    expect(page.locator("#status")).to_contain_text(re.compile(rf"reranked {len(SIDES)} in [\d.]+ ms"))
    expect(page.get_by_label("Varied results")).not_to_be_checked()  # each decides the order
    assert {name.split("-")[0] for name in names(page)[:2]} == {"blue"}


def test_an_address_that_asks_for_reranking_is_searched_where_there_is_no_reranker(page: Page, guarded: Site) -> None:
    page.goto(f"{guarded.url}/?q=blue&kind=image&rerank=1")
    enter_key(page, ADMIN)
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator("#rerank-switch")).to_be_hidden()
    expect(page.locator("#problem")).to_be_empty()


def test_a_key_is_asked_for_once_and_kept_in_this_tab_alone(page: Page, guarded: Site) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(guarded.url)
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    expect(dialog).to_be_visible()
    enter_key(page, "wrong")
    expect(dialog.locator("#key-problem")).not_to_contain_text("crosslens keys create")
    expect(dialog).to_be_visible()
    enter_key(page, ADMIN)
    expect(page.locator(".card")).to_have_count(2)
    for img in page.locator(".card img").all():
        expect(img).to_have_attribute("src", re.compile("^blob:"))
        expect(img).to_have_js_property("complete", True)
        assert img.evaluate("img => img.naturalWidth") > 0
    sources = page.locator(".card img").evaluate_all("all => all.map(img => img.src)")
    opened = """(sources) => Promise.all(sources.map((src) => new Promise((tell) => {
      Object.assign(new Image(), { src, onload: () => tell(true), onerror: () => tell(false) });
    })))"""
    assert page.evaluate(opened, sources) == [False, False]  # revoked
    page.reload()
    expect(page.locator(".card")).to_have_count(2)
    expect(page.get_by_label("Rerank the best")).to_be_hidden()
    assert not any(ADMIN in url for url in asked)
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#problem")).to_contain_text("needs a key")


def test_a_moderator_may_see_what_is_withheld(page: Page, guarded: Site) -> None:
    keys = {
        role: guarded.ask("POST", "/keys", json={"name": role, "roles": [role]})["key"] for role in ("read", "moderate")
    }
    tags: dict[str, str] = {}
    page.on("response", lambda response: tags.update({response.url: response.headers.get("etag", "")}))
    page.goto(guarded.url)
    enter_key(page, keys["read"])
    expect(page.locator(".card")).to_have_count(2)
    assert sorted(names(page)) == ["blue", "green"]
    expect(page.get_by_label("Moderator view")).to_be_hidden()
    page.locator(".card", has_text="green").locator(".open").click()
    page.get_by_role("button", name="Download original").click()
    expect(page.locator("#viewer-problem")).to_contain_text("withheld")
    page.keyboard.press("Escape")
    (seen,) = {tag for url, tag in tags.items() if "green/thumbnail?size=512" in url}
    assert "blurred" in seen

    page.get_by_role("button", name="Forget the key").click()
    enter_key(page, keys["moderate"])
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("Moderator view").check()
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator(".card", has_text="red").locator(".verdict")).to_have_text("block")
    expect(page.locator(".card", has_text="green").locator(".verdict")).to_have_text("blur")
    expect(page.locator(".card", has_text="blue").locator(".verdict")).to_have_count(0)
    expect(page.locator(".card", has_text="green").locator("img")).to_have_attribute("src", re.compile("^blob:"))
    (seen,) = {tag for url, tag in tags.items() if "green/thumbnail?size=512&view=moderator" in url}
    assert "blurred" not in seen
    page.locator(".card", has_text="red").locator(".open").click()
    expect(page.locator("#viewer-facts")).to_contain_text("block · hidden")


def test_a_collection_of_which_nothing_is_shown_is_empty_but_for_moderators(page: Page, guarded: Site) -> None:
    read = guarded.ask("POST", "/keys", json={"name": "read", "roles": ["read"]})["key"]
    page.goto(f"{guarded.url}/?collection=unjudged")
    enter_key(page, read)
    expect(page.get_by_role("heading", name="Nothing is indexed yet")).to_be_visible()
    page.get_by_role("button", name="Forget the key").click()
    enter_key(page, ADMIN)
    expect(page.get_by_role("heading", name="All of it is withheld")).to_be_visible()
    page.get_by_label("Moderator view").check()
    expect(page.locator(".card")).to_have_count(1)


def test_everything_has_a_name_and_the_focus_is_seen(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?q=red&like=red-0")
    expect(page.locator(".card")).to_have_count(24)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, dialog")]
          .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.querySelector("img[alt]:not([alt=''])") || e.hasAttribute("aria-labelledby")))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator(".card img:not([alt*='-'])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"
    ids = page.locator("[id]").evaluate_all("all => all.map((each) => each.id)")
    assert len(ids) == len(set(ids))
    page.get_by_role("searchbox").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        drawn = page.evaluate(
            """() => [document.activeElement, document.activeElement.parentElement, document.activeElement.nextElementSibling]
              .some((e) => e && getComputedStyle(e).outlineStyle !== "none" && parseFloat(getComputedStyle(e).outlineWidth) >= 2)"""
        )
        assert drawn, page.evaluate("document.activeElement.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_can_be_read_and_narrow_screens_hold_the_page(browser: Browser, site: Site, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{site.url}/?q=red")
    expect(page.locator(".card")).to_have_count(24)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    named = page.evaluate(
        """(names) => Object.fromEntries(names.map((name) => {
          const probe = document.body.appendChild(document.createElement("i"));
          probe.style.color = `var(--${name})`;
          const colour = getComputedStyle(probe).color;
          probe.remove();
          return [name, colour.match(/\\d+/g).map(Number)];
        }))""",
        ["page", "card", "track", "ink", "soft", "accent", "on-accent", "bad", "warm", "edge"],
    )
    context.close()
    on = [(ink, paper) for ink in ("ink", "soft", "bad") for paper in ("page", "card", "track")][:-1]
    for ink, paper in [*on, ("accent", "page"), ("warm", "page"), ("on-accent", "accent")]:
        assert contrast(named[ink], named[paper]) >= 4.5, (ink, paper)
    assert contrast(named["edge"], named["card"]) >= 3


def contrast(one: list[int], other: list[int]) -> float:
    """As WCAG 2.2 has it."""

    def light(colour: list[int]) -> float:
        shares = [each / 255 for each in colour[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_page_is_for_everybody_and_lets_nothing_else_run(guarded: Site) -> None:
    answer = httpx.get(f"{guarded.url}/")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src=)|https?://", answer.text)
    for name in re.findall(r"static/[\w.]+", answer.text):
        asset = httpx.get(f"{guarded.url}/{name}")
        assert asset.status_code == 200, name
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
        kept = {"If-None-Match": asset.headers["ETag"]}
        assert httpx.get(f"{guarded.url}/{name}", headers=kept).status_code == 304
        assert "http://" not in asset.text.replace("http://www.w3.org/2000/svg", "")
    for name in ("nothing.js", "..%2fpage.py", "%2e%2e%2fapp.py", "page.css%00"):
        assert httpx.get(f"{guarded.url}/static/{name}").status_code == 404, name
    assert 'href="docs"' in answer.text
