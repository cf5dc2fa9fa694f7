"""What a licence's evidence says where nobody looked for it; apart, for a child that must know no database."""

from typing import Final

NAMED: Final = "named by the operator"
