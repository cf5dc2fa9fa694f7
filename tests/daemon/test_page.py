"""The status page in a real browser: it follows by itself, is steered by keyboard, and can be read by anybody."""

import uuid
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from daemon.board import Board
from daemon.reconcile import show_line
from daemon.status import Reporter
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings
from schema.lines import fetch_line
from schema.versions import fetch_promotions
from tests.browser import Browser
from tests.daemon.api_service import api_service
from tests.daemon.conclusions import bring_to_evaluating, conclude_with

pytestmark = pytest.mark.system
SIZES = {"phone": (360, 800), "desktop": (1280, 900)}
# What has too little contrast against what lies behind it: text by 4.5, large text by 3 (WCAG 2.2 AA).
PALE = """(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if ((parts(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const pale = [];
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !one.checkVisibility()) continue;
    const style = getComputedStyle(one);
    const [a, b] = [light(style.color), light(behind(one))].sort((x, y) => y - x);
    const needed = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < needed) pale.push(`${texts.currentNode.textContent}: ${style.color}`);
  }
  return pale;
})()"""

# What makes the page wider than its window; a table may be scrolled in its own frame.
WIDE = """document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def _browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def browser(_browser):
    """One browser for all tests; between them it shows nothing, and forgets that the last service has ended."""
    yield _browser
    _browser.show("about:blank")
    _browser.problems.clear()


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def caller(ctx, engine, settings, database_url, rows):
    """Serve what a daemon serves, of a line with two versions and a run that is under way."""
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)
    rows()
    bring_to_evaluating(ctx)
    tick_figures(ctx, 5)
    everything = SimpleNamespace(
        home=ctx.paths.home,
        profile="tiny",
        database=DatabaseSettings(database_url=SecretStr(database_url)),
        monitoring=MonitoringSettings(),
        daemon=settings,
    )
    reporter = Reporter(ctx, everything, Board(engine, "micro").show)
    with api_service(engine, ctx.paths.home, "micro", health=reporter.health, status=reporter.status) as caller:
        yield caller


def tick_figures(ctx, last):
    """Let the child of the open run tell of its steps up to this one."""
    ctx.live.on_event(ctx.live.run, {"event": "eval", "step": 0, "loss": 2.6})
    for step in range(1, last + 1):
        figures = {"loss": 3.0 - step / 50, "lr": 1e-4, "tokens_per_s": 900.0, "eta_s": 60.0 - step}
        ctx.live.on_event(ctx.live.run, {"event": "step", "step": step, "total": 40, "epoch": step / 40, **figures})


def url_of(caller):
    return f"http://127.0.0.1:{caller.port}/"


def test_it_follows_by_itself_and_says_when_nobody_answers_any_more(browser, caller, ctx):
    browser.show(url_of(caller))
    browser.wait_for("document.querySelector('progress').value === 5")
    browser.ask("window.sameDocument = true; document.querySelector('#facts')?.setAttribute('open', '')")
    tick_figures(ctx, 12)
    browser.wait_for("document.querySelector('progress').value === 12")
    browser.wait_for("document.querySelectorAll('svg .train')[0].getAttribute('points').split(' ').length === 12")
    assert browser.ask("window.sameDocument")
    assert browser.ask("document.querySelector('svg .start') !== null")
    assert "training loss" in browser.ask("document.querySelector('svg').getAttribute('aria-label')")
    caller.stop()
    browser.wait_for("document.getElementById('silence').innerText.startsWith('No answer since')")
    assert browser.ask("document.querySelector('progress').value") == 12


def test_a_version_is_rolled_back_with_the_keyboard_and_a_token(browser, caller, ctx, engine):
    browser.show(url_of(caller))
    browser.wait_for("document.querySelector('[data-change=rollback]')?.checkVisibility()")
    browser.ask("document.querySelector('[data-change=rollback]').focus()")
    browser.press("Enter", 13)
    browser.wait_for("document.activeElement.id === 'token'")
    assert browser.ask("document.getElementById('change-title').innerText") == "Roll back to version 1"
    browser.type(f"codelupe_{uuid.uuid4()}")
    browser.press("Tab", 9)
    browser.type("worse in use")
    browser.press("Enter", 13)
    browser.wait_for("document.getElementById('outcome').innerText.includes('there is no such token')")
    browser.ask("document.getElementById('token').value = ''; document.getElementById('token').focus()")
    browser.type(caller.secrets["models"])
    browser.press("Enter", 13)
    browser.wait_for("!document.getElementById('change').open")
    assert browser.ask("document.getElementById('token').value") == ""
    with engine.connect() as conn:
        line = fetch_line(conn, "micro")
        last = fetch_promotions(conn, line.id)[-1]
    assert (last["version"], last["actor"], last["reason"]) == (1, "api:models", "worse in use")
    show_line(ctx, line)  # as the next tick does
    browser.wait_for("document.querySelector('tr.current td').innerText.startsWith('1')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_can_be_read_on_a_phone_and_a_desk_in_light_and_dark(size, dark, browser, caller):
    width, height = SIZES[size]
    browser.show(url_of(caller), width=width, height=height, dark=dark)
    browser.wait_for("document.querySelector('[data-change=rollback]')?.checkVisibility()")
    assert browser.ask(WIDE) == [], "the page is wider than the window"
    assert browser.ask(PALE) == []
    browser.ask("document.querySelector('[data-change=rollback]').click()")
    assert browser.ask(PALE) == []
    assert browser.problems == [], "the console, or the security policy, complains"


def test_who_hears_the_page_is_told_what_everything_is(browser, caller):
    browser.show(url_of(caller))
    browser.wait_for("document.getElementById('news').innerText !== ''")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    asked = {"button", "link", "image", "progressbar", "region", "textbox", "heading", "columnheader"}
    assert [role for role, name in told if role in asked and not name.strip()] == []
    assert {"main", "banner", "contentinfo", "navigation", "status"} <= {role for role, _ in told}
    assert ("button", "roll back to version 1") in told
    assert browser.ask("document.documentElement.lang") == "en"
    assert browser.ask("[...document.querySelectorAll('[id]')].map((one) => one.id).length") == browser.ask(
        "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
    )


def test_nothing_is_loaded_from_elsewhere(browser, caller):
    browser.show(url_of(caller))
    browser.wait_for("performance.getEntriesByType('resource').some((one) => one.name.endsWith('/view'))")
    names = browser.ask("performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in names if not name.startswith(url_of(caller))] == []
