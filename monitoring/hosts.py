"""Which names and addresses mean this machine alone."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Say whether a name or an address means this machine alone, as it is written."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_misdirected(peer: str, host: str) -> bool:
    """Say whether a call from this machine was meant for another one: a page whose name was made to point here.

    `peer` is the caller's address, `host` the Host header; who sends none is no browser.
    """
    if not host or not is_loopback(peer):
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True
    return not is_loopback(name)
