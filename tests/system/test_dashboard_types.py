"""The dashboards are what Grafana calls a dashboard: TypeScript checks them against Grafana's own types.

tests/system/grafana/ holds, as they are, the declarations of @grafana/schema 13.2.3 that our panels need, under its
licence: with them no npm is needed, and no network. `tsc` is Debian's node-typescript.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DECLARATIONS = Path(__file__).parent / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
_ENUM = re.compile(r"export declare enum (\w+) \{(.*?)\n\}", re.DOTALL)
_MEMBER = re.compile(r'(\w+) = ("[^"]*"|-?\d+)')
_COMPILER = {"strict": True, "noEmit": True, "baseUrl": ".", "moduleResolution": "node", "types": []}


def as_in_json(declarations):
    """Return the declarations with enumerations as the values that stand for them in a file."""

    def spell(enum):
        name, members = enum[1], _MEMBER.findall(enum[2])
        types = "".join(
            f" type M_{member} = {value}; export {{ M_{member} as {member} }};" for member, value in members
        )
        return (
            f"export type {name} = {' | '.join(value for _, value in members)};\nexport namespace {name} {{{types} }}"
        )

    return _ENUM.sub(spell, declarations)


def write(name, dashboard):
    """Return TypeScript that is only right if the dashboard and the options of its panels are."""
    kinds = {panel["type"] for panel in dashboard["panels"]} - {"row"}
    lines = ['import type { Dashboard } from "./dashboard";']
    lines += [f'import type {{ Options as {module_of(kind)} }} from "./{module_of(kind)}";' for kind in sorted(kinds)]
    lines += [f"const {name}: Dashboard = {json.dumps(dashboard)};"]
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            value = json.dumps(panel["options"])
            lines.append(f"const {name}_{panel['id']}: Partial<{module_of(panel['type'])}> = {value};")
    return "\n".join([*lines, "export {};\n"])


def module_of(kind):
    return kind.replace("-", "")


def check(folder, dashboards):
    """Return what tsc says against these dashboards."""
    assert shutil.which("tsc"), "tsc is missing: apt-get install node-typescript (.ci/apt-packages)"
    for path in DECLARATIONS.glob("*.d.ts"):
        (folder / path.name).write_text(as_in_json(path.read_text()))
    for name, dashboard in dashboards.items():
        (folder / f"board_{name}.ts").write_text(write(name, dashboard))
    options = {**_COMPILER, "paths": {"@grafana/schema": ["./common.d.ts"]}}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["board_*.ts"]}))
    return subprocess.run(["tsc", "-p", str(folder)], capture_output=True, text=True, timeout=300).stdout


def test_every_dashboard_and_the_options_of_every_panel_are_of_grafanas_types(tmp_path):
    assert check(tmp_path, DASHBOARDS) == ""


def test_what_grafana_would_not_understand_is_found(tmp_path):
    text = (ROOT / "deploy/grafana/dashboards/overview.json").read_text()
    panel = {"id": 99, "type": "stat", "title": "x", "gridPos": {"x": 0, "y": 0, "w": 1, "h": 1}}
    faults = {
        "colour": {"options": {"colorMode": "loud"}},
        "place": {"options": {}, "gridPos": {"x": "left", "y": 0, "w": 1, "h": 1}},
        "steps": {
            "options": {},
            "fieldConfig": {"defaults": {"thresholds": {"mode": "abs", "steps": []}}, "overrides": []},
        },
    }
    wrong = {name: {**json.loads(text), "panels": [{**panel, **fault}]} for name, fault in faults.items()}

    said = check(tmp_path, wrong)

    assert {name for name in faults if f"board_{name}.ts" in said} == set(faults)
