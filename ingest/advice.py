"""What a person may do about a source that was not read, by the reason in its row."""

ADVICE = {
    "clone_failed": "the network or the server failed; the log has git's words, `ingest add` tries again",
    "clone_too_large": "its pack is above clone_max_bytes; raise that, or name a part of it as a folder",
    "child_broken": "its reader sent nonsense; the log has the place, please report it",
    "child_died": "its reader was killed, by a limit perhaps; see child_memory_bytes and child_cpu_s, and the log",
    "corrupt": "git cannot read it; run git fsck there",
    "database_away": "an outage cut the visit off; it is read again",
    "disk_full": "no space for its clone; it is read when there is some",
    "empty": "it has no commit yet",
    "exception": "the log has the traceback, please report it",
    "licence": "its licence is none of allowed_licences; add it yourself to take it all the same",
    "linked_git": "its files lie in another repository; name that one",
    "benchmark_list": "the file that benchmark_list names is none; the log says why",
    "clones_full": "all clones together are above clones_max_bytes; it is read when others are done",
    "no_access": "it asks for a login; clone it yourself and name the folder",
    "not_found": "it is not there, or no longer; rows that were read stay. Check the address and add it again",
    "not_git": "its server does not speak git's protocol there; check the address",
    "private_host": "a found repository whose host is a private address; name it yourself if you trust it",
    "redirected": "its server sends to another host; if you trust that one, add it by its own address",
    "nothing_accepted": "no file was accepted; `ingest explain FILE` says why of each",
    "other": "its reader gave an unknown reason; the log has more",
    "out_of_memory": "its reader needs more than child_memory_bytes",
    "protocol": "only https, http and local sources are read",
    "stopped": "a stop cut the visit off; it is read at the next start",
    "timeout": "it took longer than clone_timeout_s or visit_timeout_s",
    "too_many_files": "it has more entries than max_entries; raise that, or name a part of it",
    "unreadable": "it may not be read; check who owns it",
    "worker_died": "its visits took their workers along; look for killed processes in the system's log",
}


def advise(reason: str | None) -> str:
    """Return one line of advice, nothing for no reason."""
    return ADVICE.get(reason or "", "")
