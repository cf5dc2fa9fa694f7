"""Answers that are sent once: an ETag for each, and 304 for who has it already."""

import hashlib

from flask import Response, request


def unless_known(response: Response, meaning: bytes | None = None) -> Response:
    """Give a response an ETag, of its body or of what it means, and make it a 304 where the caller has that."""
    if meaning is None:
        response.add_etag()
    else:
        response.set_etag(hashlib.sha256(meaning).hexdigest(), weak=True)
    response.make_conditional(request)
    return response
