"""The score of a repository, what it recognises by words, and who is accepted."""

import datetime as dt
from typing import Any

import pytest

from ingest.config import IngestSettings
from ingest.github.accept import accept, withdraw
from ingest.github.kinds import find_kinds
from ingest.github.replies import Found
from ingest.github.score import WEIGHTS, score_repository
from schema.found import FoundRow
from tests.ingest.github.universe import TODAY, make_repo

NOW = dt.datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=dt.UTC)


def make_found(full_name: str = "alice/tool", **values: Any) -> Found:
    return Found.model_validate(make_repo(full_name, **values).to_json("github.com"))


def judge(found: Found, **values: Any) -> FoundRow:
    return accept(found, "python", IngestSettings(**values), now=NOW)


@pytest.mark.parametrize(
    ("name", "description", "topics", "kinds"),
    [
        # What only looks like one of them.
        ("pytest", "The pytest framework makes it easy to write small tests", [], []),
        ("democracy", "Liquid democracy for everybody", [], []),
        ("Font-Awesome", "The iconic SVG, font, and CSS toolkit", [], []),
        ("awesome", "awesome window manager", [], []),
        ("MagicMirror", "An open source modular smart mirror platform", [], []),
        ("smoke-and-mirrors", "", [], []),
        ("scikit-learn", "machine learning in Python", ["machine-learning"], []),
        ("of-course", "A scheduler. See the demo at https://example.org", [], []),
        ("learnable", "", [], []),
        ("coursier", "Pure Scala artifact fetching", [], []),
        ("exampledb", "A database, for example for caches", [], []),
        ("resampler", "Downsamples audio", [], []),
        ("datasets", "A library of dataset loaders with tutorials and examples", [], []),
        ("dotnet", "", [], []),
        # What is one.
        ("react-demo", "", [], ["demo"]),
        ("myDemoApp", "", [], ["demo"]),
        ("examples", "", [], ["demo"]),
        ("x", "A simple demo application using Flask", [], ["demo"]),
        ("x", "Sample project", [], ["demo"]),
        ("test", "", [], ["demo"]),
        ("x", "", ["tutorial"], ["tutorial"]),
        ("rust-tutorial", "", [], ["tutorial"]),
        ("learn-go-with-tests", "", [], ["tutorial"]),
        ("30-days-of-python", "", [], ["tutorial"]),
        ("x", "A step by step tutorial on compilers", [], ["tutorial"]),
        ("hello-world", "", [], ["tutorial"]),
        ("leetcode", "My LeetCode solutions", [], ["course_work"]),
        ("advent-of-code-2024", "", [], ["course_work"]),
        ("x", "Code for the deep learning course", [], ["course_work"]),
        ("cs50-assignments", "", [], ["course_work"]),
        ("dotfiles", "", [], ["dotfiles"]),
        (".dotfiles", "", [], ["dotfiles"]),
        ("nvim-config", "", [], ["dotfiles"]),
        ("x", "my personal config", [], ["dotfiles"]),
        ("awesome-python", "", [], ["awesome_list"]),
        ("x", "A curated list of frameworks", [], ["awesome_list"]),
        ("x", "", ["awesome-list"], ["awesome_list"]),
        ("linux", "Mirror of https://git.kernel.org", [], ["mirror"]),
        ("x", "Read-only mirror of the main repository", [], ["mirror"]),
        ("x", "[mirror] the Go tools", [], ["mirror"]),
    ],
)
def test_kinds_are_recognised_by_whole_words(name: str, description: str, topics: list[str], kinds: list[str]) -> None:
    assert list(find_kinds(name, description, topics)) == kinds


def test_a_score_is_the_weighted_sum_of_its_components() -> None:
    score = score_repository(make_found(), ["cli", "parser"], NOW)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert set(score.components) == set(WEIGHTS)
    assert all(0 <= points <= 100 for points in score.components.values())
    assert score.value == pytest.approx(
        sum(WEIGHTS[name] * points for name, points in score.components.items()), abs=0.1
    )
    assert score.to_json() == {"components": score.components, "penalties": {}, "terms": ["cli", "parser"]}


@pytest.mark.parametrize(
    ("component", "worse"),
    [
        ("popularity", {"stars": 10}),
        ("popularity", {"forks": 3}),
        ("activity", {"pushed": dt.date(2022, 1, 1)}),
        ("activity", {"created": TODAY - dt.timedelta(days=40)}),
        ("documentation", {"description": None}),
        ("documentation", {"topics": ()}),
        ("licence", {"licence": None}),
        ("licence", {"licence": "NOASSERTION"}),
        ("size", {"size": 9}),
        ("size", {"size": 900_000}),
    ],
)
def test_each_component_sees_what_it_is_for_and_nothing_else(component: str, worse: dict[str, Any]) -> None:
    good = score_repository(make_found(), [], NOW).components
    bad = score_repository(make_found(**worse), [], NOW).components
    assert bad[component] < good[component]
    assert {name for name in good if good[name] != bad[name]} == {component}


@pytest.mark.parametrize(
    ("reason", "values", "settings"),
    [
        (None, {}, {}),
        (None, {"stars": 12, "forks": 4, "topics": ()}, {}),
        ("score", {"stars": 12, "forks": 4, "licence": None, "pushed": dt.date(2021, 1, 1)}, {}),
        ("tutorial", {"topics": ("tutorial", "parser"), "stars": 200_000, "forks": 90_000}, {}),
        ("archived", {"archived": True}, {}),
        ("fork", {"fork": True}, {}),
        ("mirror", {"values": {"mirror_url": "git://git.example.org/x"}}, {}),
        ("disabled", {"values": {"disabled": True}}, {}),
        ("not_public", {"values": {"private": True}}, {}),
        ("too_big", {"size": 2_000_000}, {}),
        ("unpopular", {"stars": 9}, {}),
        ("unpopular", {"forks": 9}, {"min_forks": 10}),
        ("young", {"created": TODAY - dt.timedelta(days=9), "pushed": TODAY}, {"min_repository_score": 10}),
        ("score", {}, {"min_repository_score": 99}),
        ("foreign_clone_url", {"values": {"clone_url": "https://evil.example/alice/tool.git"}}, {}),
        ("foreign_clone_url", {"values": {"clone_url": "http://github.com/alice/tool.git"}}, {}),
        ("force_exclude", {}, {"force_exclude": ["Alice/*"]}),
        (None, {"topics": ("tutorial",), "stars": 2, "archived": True}, {"force_include": ["alice/to*"]}),
        ("force_exclude", {}, {"force_include": ["alice/*"], "force_exclude": ["alice/tool"]}),
        ("too_big", {"size": 2_000_000}, {"force_include": ["alice/*"]}),
    ],
)
def test_who_is_refused_has_one_reason(reason: str | None, values: dict[str, Any], settings: dict[str, Any]) -> None:
    row = judge(make_found(**values), **settings)
    assert (row.state, row.reason) == ("refused" if reason else "queued", reason)


def test_who_has_opted_out_is_refused_whatever_is_forced() -> None:
    row = judge(make_found("Alice/Tool"), force_include=["alice/tool"])
    assert [(row.state, row.reason) for row in withdraw([row], ["alice/*"])] == [("refused", "opted_out")]
    assert withdraw([row], ["bob/*"]) == [row]


def test_a_row_has_one_name_for_each_repository_and_comes_after_what_the_operator_named() -> None:
    row = judge(make_found("Alice/Tool"))
    assert (row.source, row.host, row.owner, row.name) == (
        "https://github.com/alice/tool",
        "github.com",
        "alice",
        "tool",
    )
    assert row.priority == round(row.repository_score) - 100 < 0
