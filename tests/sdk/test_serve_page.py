"""The page in a real browser, narrow and wide."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from mengzi_mt.compression.export import ExportSettings, export
from mengzi_mt.resources import resource_dir
from mengzi_mt.sdk.catalogue import TASKS
from mengzi_mt.sdk.mengzi import Mengzi
from mengzi_mt.sdk.serve_examples import EXAMPLES
from tests.sdk.serve_stub import StubModel, running

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"narrow": (390, 844), "wide": (1280, 800)}


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server():
    with running(StubModel(pause=0.01)) as found:
        yield found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The release model for the narrow page, and what int8 makes of it for the wide one."""
    folder = resource_dir("models") / "mengzi-mt-mini"
    if not folder.exists():
        pytest.skip(f"there is no {folder}")
    small = tmp_path_factory.mktemp("form") / "int8"
    export(folder, small, ExportSettings())
    return {"narrow": Mengzi.load(folder, device="cpu"), "wide": Mengzi.load(small)}


@pytest.fixture(params=SIZES)
def page(browser, server, request):
    with opened_page(browser, server, request.param) as found:
        yield found


@contextmanager
def opened_page(browser, server, size):
    width, height = SIZES[size]
    opened = browser.new_page(viewport={"width": width, "height": height})
    faults = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(server.url) else None)
    opened.goto(server.url)
    yield opened
    asked_for = ("status of 429", "net::ERR_FAILED")  # by the tests of refusals
    assert [one for one in faults if not any(known in one for known in asked_for)] == []
    assert opened.locator("html").evaluate("one => one.scrollWidth") == width
    opened.close()


def run(page, task, example=0):
    page.select_option("#task", task)
    page.locator("#examples button").nth(example).click()
    page.click("#run")
    page.locator("#status", has_text="用时").wait_for(timeout=20_000)


@pytest.mark.parametrize("size", SIZES)
def test_the_trained_model_answers_on_the_page_as_in_the_library(browser, models, size):
    model = models[size]
    with running(model) as server, opened_page(browser, server, size) as page:
        for task in page.locator("#task option").evaluate_all("all => all.map((one) => one.value)"):
            run(page, task)
            assert page.locator("#error").is_hidden()
            if task == "generate":
                assert page.locator(".written").inner_text().strip()
                continue
            row = dict(EXAMPLES[task][0])
            if task not in ("sentiment", "news_topic", "medical_intent", "entities"):
                assert page.locator("#result").inner_text().strip()
                continue
            (found,) = model.predict(task, [row])
            if task == "entities":
                assert page.locator("mark").evaluate_all("all => all.map((one) => one.firstChild.textContent)") == [
                    entity.text for entity in found.entities
                ]
            else:
                label, share = page.locator(".verdict").evaluate("one => [...one.childNodes].map((part) => part.textContent)")
                assert (label, float(share.rstrip("%"))) == (found.label, pytest.approx(100 * found.probability, abs=0.11))


def test_every_task_answers_its_first_example(page):
    tasks = page.locator("#task option").evaluate_all("all => all.map((one) => one.value)")
    assert len(tasks) == len(TASKS) + 1
    for task in tasks:
        run(page, task)
        assert page.locator("#error").is_hidden()
        assert page.locator("#result").inner_text().strip()


def test_labels_have_bars_and_shares(page):
    run(page, "news_topic")
    assert page.locator(".verdict small").inner_text() == "70.0%"
    assert page.locator(".shares li").first.get_attribute("class") == "best"
    wide = page.locator(".shares .bar div").evaluate_all("all => all.map((one) => one.style.width)")
    assert wide[0] == "70%"
    page.click("details.more summary")
    assert page.locator(".shares li:visible").count() == 15


def test_entities_are_marked_at_their_place_behind_an_emoji(page):
    page.select_option("#task", "entities")
    page.fill("#input-text", "😀今天周明远到了<b>上海</b>")
    page.click("#run")
    page.locator("mark").wait_for()
    assert page.locator("mark").evaluate("one => one.firstChild.textContent") == "周明远"
    assert page.locator("table.found tbody tr td").all_inner_texts() == ["人名", "周明远", "3–6"]
    assert "<b>上海</b>" in page.locator(".reading").inner_text()


def test_written_text_appears_piece_by_piece(page):
    page.select_option("#task", "generate")
    page.fill("#input-prompt", "一二三四五六七八九十" * 12)
    page.click("#run")
    page.locator(".written.busy").wait_for()
    early = len(page.locator(".written").inner_text())
    page.locator("#status", has_text="用时").wait_for(timeout=20_000)
    assert early < len(page.locator(".written").inner_text()) == 120


def test_what_is_missing_is_said_in_words(page):
    page.select_option("#task", "classify")
    page.click("#run")
    assert page.locator(".wrong:visible").all_inner_texts() == ["请填写“文本”。", "至少要有两个标签。"]
    assert page.evaluate_handle("document.activeElement").get_property("id").json_value() == "input-text"
    page.fill("#input-text", "好")
    page.fill("#input-labels", "甲、乙，甲")
    page.click("#run")
    assert page.locator(".wrong:visible").all_inner_texts() == ["标签“甲”重复了。"]
    assert page.locator("#input-labels").get_attribute("aria-invalid") == "true"


def test_the_keyboard_alone_is_enough(page):
    page.locator("#task").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    page.locator("#status", has_text="用时").wait_for(timeout=20_000)
    assert page.locator(".verdict").is_visible()


def test_everything_that_can_be_filled_has_a_label(page):
    for task in ("keywords", "classify", "financial_relation"):
        page.select_option("#task", task)
        page.locator("#options").evaluate("one => { one.open = true; }")
        for control in page.locator("input:visible, select:visible, textarea:visible").all():
            assert control.evaluate("one => one.labels.length") == 1


def test_a_refusal_is_said_in_chinese(page):
    page.route(
        "**/v1/predict",
        lambda route: route.fulfill(
            status=429,
            headers={"Retry-After": "3"},
            json={"error": {"code": "queue_full", "message": "", "where": None, "fix": None}},
        ),
    )
    page.select_option("#task", "sentiment")
    page.locator("#examples button").first.click()
    page.click("#run")
    page.locator("#error:visible").wait_for()
    assert page.locator("#error").inner_text() == "服务器正忙，请在 3 秒后再试。"


def test_a_server_that_is_gone_is_said_in_words(page):
    page.route("**/v1/predict", lambda route: route.abort())
    run_button = page.locator("#run")
    page.locator("#examples button").first.click()
    run_button.click()
    page.locator("#error:visible").wait_for()
    assert page.locator("#error").inner_text() == "连不上服务器，请确认服务仍在运行。"
    assert run_button.is_enabled()


def test_the_page_asks_for_the_token_where_one_is_needed(browser):
    token = "geheim-0123456789abcdef"
    with running(StubModel(), token=token) as server:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(server.url)
        page.locator("#examples button").first.click()
        page.click("#run")
        page.locator("#error:visible").wait_for()
        assert "令牌" in page.locator("#error").inner_text()
        page.fill("#token", token)
        page.click("#run")
        page.locator(".verdict").wait_for()
        page.close()
