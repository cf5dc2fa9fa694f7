"""Servers whose answers are small on the wire, or without end, and large in whoever reads them; a watch on memory."""

import contextlib
import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.ingest.hostile import encode_object
from tests.ingest.servers import ADVERTISEMENT, OID, Request, answer_as_git_does, pkt

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NUM_REFERENCES = 1_000_000
_LARGE_BYTES = 900_000_000


@dataclass
class Peak:
    """The most memory that a set of processes had at one moment, and who had it."""

    num_bytes: int = 0
    parts: tuple[str, ...] = ()


@contextlib.contextmanager
def watch_memory(root_pid: int) -> Iterator[Peak]:
    """Measure the resident memory of all that a process starts while the block runs, together.

    A child that has not yet become its own program is left out: its memory is still that of `root_pid`.
    """
    peak, done = Peak(), threading.Event()
    own_arguments, before = _arguments(root_pid), {*_descendants(root_pid)}

    def watch() -> None:
        while not done.wait(0.01):
            # The arguments before the size: a child that has its own by then has its own memory too.
            found = {pid: _arguments(pid) for pid in _descendants(root_pid) if pid not in before}
            started = {pid: name for pid, name in found.items() if name != own_arguments}
            sizes = {pid: _resident_bytes(pid) for pid in started}
            if sum(sizes.values()) > peak.num_bytes:
                peak.num_bytes = sum(sizes.values())
                peak.parts = tuple(f"{started[pid][-80:]}: {size >> 20} MB" for pid, size in sizes.items())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _arguments(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def send_a_million_references(request: Request) -> None:
    """Speak protocol 0 whatever was asked for: every reference comes before anything else."""
    request.start(200, ADVERTISEMENT)
    request.write(pkt(b"# service=git-upload-pack\n") + b"0000" + pkt(OID + b" HEAD\0agent=test filter shallow\n"))
    for first in range(0, _NUM_REFERENCES, 10_000):
        numbers = range(first, first + 10_000)
        request.write(b"".join(pkt(OID + b" refs/heads/%07d\n" % number) for number in numbers))
    request.write(b"0000")


def talk_without_end(request: Request) -> None:
    """Send what a person is to read while the pack is made."""
    answer_as_git_does(request, lambda request: request.flood(pkt(b"\x02" + b"x" * 60_000 + b"\n")))


def claim_many_objects(request: Request) -> None:
    """Send a pack of so many objects that a list of them would fill the memory."""
    _send_pack(request, [encode_object(3, 1, b"x")], num_objects=16_000_000)


def send_a_large_commit(request: Request) -> None:
    """Send a commit that takes a thousandth of its size."""
    _send_pack(request, _deflate_zeros(1, _LARGE_BYTES), num_objects=1)


def send_a_large_delta(request: Request) -> None:
    """Send a file that copies a megabyte again and again."""
    base, num_copies = bytes(1_000_000), _LARGE_BYTES // 1_000_000
    sizes = _varint(len(base)) + _varint(len(base) * num_copies)
    delta = sizes + (b"\xf0" + len(base).to_bytes(3, "little")) * num_copies
    oid = hashlib.sha1(f"blob {len(base)}\0".encode() + base).digest()
    _send_pack(request, [encode_object(3, len(base), base), encode_object(7, len(delta), delta, oid)], num_objects=2)


def _send_pack(request: Request, chunks: Iterable[bytes], *, num_objects: int) -> None:
    def send(request: Request) -> None:
        digest = hashlib.sha1()
        for chunk in (b"PACK" + struct.pack(">II", 2, num_objects), *chunks):
            digest.update(chunk)
            for at in range(0, len(chunk), 60_000):
                request.write(pkt(b"\x01" + chunk[at : at + 60_000]))
        request.write(pkt(b"\x01" + digest.digest()) + b"0000")

    answer_as_git_does(request, send)


def _deflate_zeros(kind: int, num_bytes: int) -> Iterator[bytes]:
    """Yield an object of zeros; the sum at its end is missing."""
    yield encode_object(kind, num_bytes, b"")[: -len(zlib.compress(b"", 1))]
    deflate = zlib.compressobj(1)
    yield deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same bytes give the same bytes.
    again = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    yield again * (num_bytes // 1_000_000 - 1)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


BOMBS: list[tuple[Callable[[Request], None], str]] = [
    (send_a_million_references, "out_of_memory"),
    (talk_without_end, "clone_failed"),
    (claim_many_objects, "out_of_memory"),
    (send_a_large_commit, "out_of_memory"),
    (send_a_large_delta, "out_of_memory"),
]
