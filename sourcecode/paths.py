"""What the path alone says against a file. Whole parts are compared, so `pytest` is no test and `distutils` no dist."""

import re

from sourcecode.languages import detect_language, file_extension
from sourcecode.limits import Limits


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VENDORED_PARTS = _words(
    "node_modules bower_components jspm_packages vendor vendors vendored _vendor third_party thirdparty third-party"
    " 3rdparty 3rd_party external_libs site-packages dist-packages dist _bundled .venv .tox .nox"
    " .eggs .yarn .pnpm-store .pub-cache .dart_tool __pycache__ .git .hg .svn"
)
# Written by their tools with a capital; in small letters they are packages about pods or about these tools.
_TOOL_PARTS = _words("Pods Carthage Godeps")
# Not `snapshots`: it is a word of databases and disks, and what insta and others put there has extensions of its own.
_FIXTURE_PARTS = _words(
    "fixtures fixture __fixtures__ testdata test-data test_data testcases test-fixtures test_fixtures __snapshots__"
    " __mocks__ goldens cassettes"
)
TEST_PARTS = _words(
    "test tests testing __tests__ spec specs e2e idle_test integration_test integration-tests integration_tests"
    " unittests unit_tests test_driver"
)
_TEST_NAME = re.compile(
    r"test_[^/]*\.pyi?|[^/]+_tests?\.(?:pyi?|go|dart|rs)|tests?\.(?:py|rs|js|ts)|conftest\.py"
    r"|[^/]+[.-](?:test|tests|spec|e2e|cy|stories)\.[cm]?[jt]sx?",
)
_CONFIGURATION_NAME = re.compile(
    r"[^/]*\.(?:config|conf|rc|setup)\.[cm]?[jt]s|\.[^/]*rc\.[cm]?[jt]s"
    r"|(?:gruntfile|gulpfile|jakefile)\.[cm]?[jt]s|(?:setup|noxfile|fabfile)\.py|docs?/(?:source/)?conf\.py"
)
_GENERATED_NAME = re.compile(
    r"[^/]*(?:_pb2(?:_grpc)?\.pyi?|\.pb(?:\.gw|json|enum|server|grpc)?\.(?:go|dart|ts|js)|_grpc\.pb\.go|_pb\.(?:js|ts|d\.ts)"
    r"|\.g\.dart|\.freezed\.dart|\.gr\.dart|\.mocks\.dart|\.config\.dart|zz_generated[^/]*\.go|[^/]*_generated\.(?:go|rs|py|ts|js)"
    r"|\.generated\.[cm]?[jt]sx?|bindata\.go|parser\.out\.py|\.pnp\.(?:loader\.)?[cm]?js)"
)
_MINIFIED_NAME = re.compile(r"[^/]*[.-](?:min|bundle|pack|prod)\.[cm]?js")


def is_vendored(folder: str) -> bool:
    """Say whether a folder of this name holds the code of others, or what a tool made."""
    return folder in _TOOL_PARTS or folder.lower() in _VENDORED_PARTS


def judge_path(path: str, limits: Limits, *, is_executable: bool = True) -> tuple[str, str] | None:
    """Return (reason, detail) against a file by its path, or None; `/` separates the parts.

    Letter case is ignored, but in the names of folders that a tool writes with a capital.
    A path without an extension passes if the file is executable: its first line may name an interpreter.
    """
    written = tuple(part for part in path.split("/") if part not in ("", "."))
    parts = tuple(map(str.lower, written))
    name = parts[-1] if parts else ""
    if vendored := next(filter(is_vendored, written[:-1]), None):
        return "vendored", f"folder {vendored}"
    if hit := _FIXTURE_PARTS.intersection(parts[:-1]):
        return "test_fixture", f"folder {min(hit)}"
    language = detect_language(path, languages=limits.languages)
    if (language is None and "." in name) or (language is not None and language not in limits.languages):
        return "language", language or file_extension(name)
    if not limits.keep_tests and (hit := TEST_PARTS.intersection(parts[:-1])):
        return "test", f"folder {min(hit)}"
    if not limits.keep_tests and _TEST_NAME.fullmatch(name):
        return "test", f"name {name}"
    if _CONFIGURATION_NAME.fullmatch(name) or _CONFIGURATION_NAME.fullmatch("/".join(parts[-2:])):
        return "configuration", f"name {name}"
    if _GENERATED_NAME.fullmatch(name):
        return "generated", f"name {name}"
    if _MINIFIED_NAME.fullmatch(name):
        return "minified", f"name {name}"
    if "." not in name and not is_executable:
        return "language", "no extension, and not executable"
    return None
