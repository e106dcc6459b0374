"""The service's pages in a real browser: they work, load nothing from elsewhere, and fit a phone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import LocalService

TOKEN = "a-token-of-sixteen-or-more"
MARKUP = '<img src=x onerror="document.title=1">'


@pytest.mark.nightly
@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 1000), ("light", 320)])
def test_a_person_teaches_and_asks(tmp_path: Path, scheme: str, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = shutil.which("chromium") or pytest.skip("needs chromium")
    service = LocalService(tmp_path, token=TOKEN)
    with service.listening() as address, playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context: Any = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page, requested, errors = context.new_page(), [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)

        page.goto(f"{address}/")
        page.click("#learn .main")
        page.wait_for_selector("#access:not([hidden])")
        assert "there is no token" in page.text_content("#error")
        page.fill("#token", TOKEN)
        page.click("#access button")
        page.locator(".label").nth(0).fill(MARKUP)
        page.click("#more")
        page.locator(".label").nth(2).fill("third")
        page.locator(".texts").nth(2).fill("topic1\n\ntopic2 \n")
        page.click("#learn .main")
        page.wait_for_selector("#asking:not([hidden])")
        assert page.text_content("#task").startswith("Learned 3 classes from 6 examples. Expected to be right on ")
        page.fill("#text", "topic1")
        page.click("#ask .main")
        page.wait_for_selector("#answer table")
        assert sorted(page.locator("#answer th").all_inner_texts()) == sorted([MARKUP, "delivery", "third"])
        assert page.locator("#answer tr").count() == 3
        assert page.title() == "distmeta", "what was typed is text"
        page.fill("#text", " ")
        page.click("#ask .main")
        page.wait_for_selector("#error:not(:empty)")
        assert page.text_content("#error").startswith("inputs[0]: text is ' '")
        page.click("#forget")
        page.wait_for_selector("#asking", state="hidden")
        assert service.store.ids() == []
        for path in ("/", "/docs"):
            page.goto(address + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
            assert dark == (scheme == "dark")
        assert {url.partition("/docs")[0].rstrip("/") for url in requested if not url.startswith("data:")} <= {
            *(address, f"{address}/tasks"),
            *(url for url in requested if url.startswith(f"{address}/tasks/")),
        }
        assert not errors
        chromium.close()
