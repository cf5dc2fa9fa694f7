"""Names for content: what is the same has the same name on every machine and in every run."""

import hashlib


def content_sha256(text: str) -> str:
    """Return the SHA-256 of the text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def blob_oid(data: bytes) -> str:
    """Return the object id that git gives these bytes (SHA-1 repositories), in hexadecimal."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def stable_share(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone and is spread evenly over keys."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
