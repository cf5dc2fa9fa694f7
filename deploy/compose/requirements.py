"""Print what pyproject.toml requires, a line each, or what an extra of it does: what the image installs first."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = project["optional-dependencies"][sys.argv[1]] if sys.argv[1:] else project["dependencies"]
sys.stdout.write("\n".join(wanted) + "\n")
