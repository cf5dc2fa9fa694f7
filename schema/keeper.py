"""The keeper: owns the PostgreSQL of one home, and stops it when the last client has left.

`python -m schema.keeper HOME --lock-fd N` is started by `schema.embedded`, which hands over the locked lock file, so no
two keepers can be started. It goes to the background, writes `{"progress": …}`, then `{"error": …}` or
`{"ready": true}` to standard output, and closes it.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from schema.cluster import find_binaries, prepare_cluster
from schema.keeper_loop import Keeper
from schema.places import EmbeddedError, Places, make_sockets_dir, remove_sockets
from schema.postgres import Postgres

log = logging.getLogger("schema.keeper")


def main(arguments: list[str] | None = None) -> int:
    """Go to the background and keep the PostgreSQL of the given home."""
    options = _parse(arguments)
    if os.fork():  # our parent reaps us at once, and need not reap the keeper
        return 0
    os.chdir("/")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] %(levelname)s %(message)s")
    try:
        _keep(options)
    except (EmbeddedError, OSError) as error:
        log.error("%s", error, extra={"event": "keeper_failed"})
        _report(error=str(error))
        return 1
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m schema.keeper")
    parser.add_argument("home", type=Path)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--postgres-bin", type=Path)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE for PostgreSQL")
    return parser.parse_args(arguments)


def _keep(options: argparse.Namespace) -> None:
    places = Places(options.home)
    settings = dict(option.split("=", 1) for option in options.option)
    _write_lock(options.lock_fd, {"pid": os.getpid(), "socket": os.fspath(places.keeper_socket)})
    binaries = find_binaries(options.postgres_bin)
    data = prepare_cluster(binaries, places, lock_fd=options.lock_fd, sync=settings.get("fsync") != "off")
    make_sockets_dir(places.sockets)
    keeper = Keeper(Postgres(binaries, data, places, options.lock_fd, settings), grace_s=options.grace_s)
    try:
        keeper.open(lambda text: _report(progress=text))
        _report(ready=True)
        _close_report()
        keeper.serve()
    finally:
        keeper.close()
        remove_sockets(places.sockets)
        _write_lock(options.lock_fd, None)


def _write_lock(lock_fd: int, content: dict[str, Any] | None) -> None:
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, json.dumps(content).encode() if content else b"", 0)


def _report(**message: object) -> None:
    """Tell whoever started us; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _close_report() -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
