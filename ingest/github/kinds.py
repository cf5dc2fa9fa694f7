"""What a repository is when it is no software to learn from: told by whole words, never by parts of words.

`pytest` is no test, `democracy` no demo, `font-awesome` no list, `of-course` no course. A topic is its owner's own
word; a name counts by its words; of a description only phrases count, since every library's says where its demo is.
"""

import re
from dataclasses import dataclass

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    topics: frozenset[str]
    name_pattern: re.Pattern[str]  # over the words of the name, separated by one space
    description_pattern: re.Pattern[str]


def _kind(name: str, topics: str, name_pattern: str, description_pattern: str) -> _Kind:
    return _Kind(
        name,
        frozenset(topics.split()),
        re.compile(rf"(?:{name_pattern})"),
        re.compile(rf"(?:{description_pattern})", re.IGNORECASE),
    )


# In the order in which they are named where several fit.
_KINDS = (
    _kind(
        "awesome_list",
        "awesome awesome-list awesome-lists curated-list",
        r"^awesome .+|^.+ awesome list$|^awesome list$",
        r"\b(?:curated|awesome|opinionated) (?:\w+ )?list\b|\blist of (?:awesome|curated)\b",
    ),
    _kind(
        "dotfiles",
        "dotfiles dotfile nixos-config nvim-config neovim-config vim-config",
        r"\bdot ?files?\b|^(?:my )?(?:nvim|neovim|vim|nixos|emacs|hyprland|i3) (?:config|configs|configuration)$",
        r"\bdot ?files\b|\bmy (?:personal )?(?:config|configuration)s?\b",
    ),
    _kind(
        "course_work",
        "homework assignment assignments coursework course course-materials bootcamp udemy coursera leetcode "
        "leetcode-solutions advent-of-code adventofcode hackerrank interview-questions interview-preparation 42school",
        r"\b(?:course ?work|home ?work|assignments?|bootcamp|leet ?code|hackerrank|codewars)\b"
        r"|\b(?:advent of code|exercism)\b|(?<!of )\bcourse$"
        r"|^course\b|\b(?:course|class) (?:project|material|materials|notes|code)\b"
        r"|\binterview questions\b"
        r"|\bcourses$",
        r"\b(?:course ?work|home ?work assignments?|leetcode solutions|solutions (?:to|for|of) (?:the )?"
        r"(?:advent of code|leetcode|project euler|exercises))\b"
        r"|\b(?:code|materials?|exercises|repo|repository|assignments?|project) (?:for|of|from) (?:\w+ ){0,4}"
        r"(?:course|class|bootcamp|lecture|book)\b",
    ),
    _kind(
        "tutorial",
        "tutorial tutorials tutorial-code tutorial-exercises tutorial-sourcecode learning-by-doing cheatsheet workshop",
        r"\b(?:tutorials?|workshops?|cheat ?sheets?|walkthroughs?|\d+ days(?: of .+)?)\b|^learn(?:ing)? "
        r"|^hello ?world$|\bfor beginners$",
        r"^(?:an?|the|my|this is an?)?\s*(?:\w+ ){0,4}tutorials?\b"
        r"|\btutorials? (?:for|on|about|series|project|code)\b"
        r"|\b(?:learn|learning) \w+ (?:by|step by step|from scratch)\b",
    ),
    _kind(
        "demo",
        "demo demos demo-app demo-project sample samples sample-code sample-app example examples example-project "
        "playground",
        r"\b(?:demos?|samples?|examples?|playground)\b|^tests?$|^(?:test|sandbox) (?:repo|repository|project|app)$",
        r"^(?:an?|the|my|some|simple|small|this is an?)?\s*(?:\w+ ){0,3}(?:demo|sample|example)s?"
        r"(?: (?:apps?|applications?|projects?|code|repo|repository|for|of|using|with|to|showing)\b"
        r"|[.!]?$)",
    ),
    _kind(
        "mirror",
        "mirror read-only-mirror",
        r"(?!)",
        r"^\W*(?:(?:an?|the|un)?\s*(?:official|unofficial|read.?only|git|github|automatic)\s+)*mirror (?:of|for|repo)\b"
        r"|^\W*\[?mirror\]",
    ),
)
KIND_NAMES = tuple(kind.name for kind in _KINDS)


def find_kinds(name: str, description: str, topics: list[str]) -> dict[str, str]:
    """Return what else than software a repository is, with where that is said: name, topics or description."""
    words = split_words(name)
    found = {}
    for kind in _KINDS:
        if kind.topics & set(topics):
            found[kind.name] = "topics"
        elif kind.name_pattern.search(words):
            found[kind.name] = "name"
        elif kind.description_pattern.search(description):
            found[kind.name] = "description"
    return found


def split_words(name: str) -> str:
    """Return the words of a name, in lower case and separated by one space: `myDemo-App` is `my demo app`."""
    return _SEPARATORS.sub(" ", _CAMEL.sub(" ", name).lower()).strip()
