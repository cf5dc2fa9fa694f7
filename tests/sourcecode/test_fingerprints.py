"""Names for content."""

import hashlib
import subprocess

from sourcecode.fingerprints import blob_oid, content_sha256, stable_share


def test_it_names_a_blob_as_git_does() -> None:
    data = b"print('\xc3\xa9')\n"
    git = subprocess.run(["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True)
    assert blob_oid(data) == git.stdout.decode().strip()


def test_it_hashes_the_utf8_form_of_a_text() -> None:
    assert content_sha256("é") == hashlib.sha256("é".encode()).hexdigest()


def test_it_spreads_keys_evenly_and_never_differently() -> None:
    shares = [stable_share(f"unit {number}") for number in range(4000)]
    assert all(0 <= share < 1 for share in shares)
    assert 0.08 < sum(share < 0.1 for share in shares) / len(shares) < 0.12
    assert stable_share("python3.11:json") == 0.7601225780419227
