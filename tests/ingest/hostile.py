"""Git repositories that no git would make: packs written by hand."""

import hashlib
import struct
import zlib
from pathlib import Path

from tests.ingest.helpers import git, make_code

_TYPES = {"commit": 1, "tree": 2, "blob": 3}
_COMMIT = "tree {}\nauthor alice <alice@example.org> 1 +0000\ncommitter alice <alice@example.org> 1 +0000\n\nx\n"


def encode_object(kind: int, num_bytes: int, data: bytes, base: bytes = b"") -> bytes:
    """Return an object as a pack holds it, with the size that it is to claim; a delta names its base."""
    size = num_bytes >> 4
    head = bytearray([kind << 4 | num_bytes & 15])
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head) + base + zlib.compress(data, 1)


class Pack:
    """Objects of a repository in the making."""

    def __init__(self) -> None:
        self._objects: list[bytes] = []

    def add(self, kind: str, data: bytes) -> bytes:
        """Add an object; return its id."""
        self._objects.append(encode_object(_TYPES[kind], len(data), data))
        return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).digest()

    def add_tree(self, **entries: bytes) -> bytes:
        """Add a tree of files (their names end with _py) and folders, named in git's order."""
        lines = [
            (f"100644 {name[:-3]}.py" if name.endswith("_py") else f"40000 {name}").encode() + b"\0" + oid
            for name, oid in entries.items()
        ]
        return self.add("tree", b"".join(lines))

    def write(self, root: Path, tree: bytes) -> Path:
        """Make a bare repository of the objects with one commit of `tree`."""
        commit = self.add("commit", _COMMIT.format(tree.hex()).encode())
        body = b"PACK" + struct.pack(">II", 2, len(self._objects)) + b"".join(self._objects)
        root.mkdir()
        git(root, "init", "-q", "--bare", "-b", "main")
        git(root, "index-pack", "--stdin", data=body + hashlib.sha1(body).digest())
        git(root, "update-ref", "refs/heads/main", commit.hex())
        return root


def make_deep_repository(root: Path, depth: int) -> Path:
    """Make a repository with a file at the top and one that many folders deep."""
    pack = Pack()
    blob = pack.add("blob", make_code("deep").encode())
    tree = pack.add_tree(a_py=blob)
    for _ in range(depth):
        tree = pack.add_tree(d=tree)
    return pack.write(root, pack.add_tree(a_py=blob, d=tree))


def make_large_repository(root: Path, num_bytes: int) -> Path:
    """Make a repository with an accepted file and one of so many bytes that a pack holds in few."""
    pack = Pack()
    blob, large = pack.add("blob", make_code("small").encode()), pack.add("blob", b"\n" * num_bytes)
    return pack.write(root, pack.add_tree(a_py=blob, large_py=large))
