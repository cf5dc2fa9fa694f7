"""Write sourcecode/licences.json from SPDX's texts: `python -m docs.licences FOLDER`, the folder of <SPDX id>.json.

The files have the keys of npm's package spdx-license-list: `licenseText`. Only hashes of the texts are stored.
"""

import json
import re
import sys
from pathlib import Path

from sourcecode.licence_texts import DATA, make_sketch, pack

# What repositories are really under, and what must not be taken for it.
KNOWN = (
    *("0BSD", "AFL-3.0", "AGPL-3.0-only", "Apache-1.1", "Apache-2.0", "Artistic-1.0", "Artistic-2.0", "BSD-1-Clause"),
    *("BSD-2-Clause", "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0"),
    *("BUSL-1.1", "BlueOak-1.0.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0"),
    *("CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDDL-1.0", "CECILL-2.1", "EPL-1.0", "EPL-2.0"),
    *("EUPL-1.1", "EUPL-1.2", "Elastic-2.0", "GFDL-1.3-only", "GPL-2.0-only", "GPL-3.0-only", "HPND", "ISC", "JSON"),
    *("LGPL-2.0-only", "LGPL-2.1-only", "LGPL-3.0-only", "LPPL-1.3c", "MIT", "MIT-0", "MPL-1.1", "MPL-2.0", "MS-PL"),
    *("MS-RL", "MulanPSL-2.0", "NCSA", "OFL-1.1", "OSL-3.0", "OpenSSL", "PHP-3.01", "PSF-2.0"),
    *("PolyForm-Noncommercial-1.0.0", "PolyForm-Small-Business-1.0.0", "PostgreSQL", "Python-2.0", "SSPL-1.0"),
    *("UPL-1.0", "Unicode-3.0", "Unlicense", "Vim", "W3C", "WTFPL", "X11", "Zlib", "curl", "Hippocratic-2.1"),
)
# What follows a licence's own text: how to apply it, and, below the LGPL's, the whole GPL.
_REST = re.compile(
    r"(end of terms and conditions|appendix: how to apply|(?<=.)\n\s*gnu general public license\s+version 3).*",
    re.IGNORECASE | re.DOTALL,
)


def main(folder: Path) -> None:
    """Read the texts of KNOWN and write their hashes."""
    texts = {spdx: json.loads((folder / f"{spdx}.json").read_text())["licenseText"] for spdx in sorted(KNOWN)}
    # Everybody else's copy of it names the author.
    texts["ISC"] = re.sub(r"\bISC(?= disclaims| be liable)", "the author", texts["ISC"], flags=re.IGNORECASE)
    packed = {spdx: pack(make_sketch(_REST.sub("", text))) for spdx, text in texts.items()}
    DATA.write_text(json.dumps(packed, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
