import pytest

from monitoring.hosts import is_loopback, is_misdirected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_which_names_mean_this_machine(host, expected):
    assert is_loopback(host) == expected


@pytest.mark.parametrize(
    ("peer", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:8090", False),
        ("127.0.0.1", "localhost", False),
        ("::1", "[::1]:8090", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "evil.example:8090", True),
        ("::ffff:127.0.0.1", "evil.example", True),
        ("127.0.0.1", "[", True),
        ("172.18.0.5", "daemon:8090", False),
    ],
)
def test_a_call_from_here_must_be_meant_for_here(peer, host, expected):
    assert is_misdirected(peer, host) == expected
