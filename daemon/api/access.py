"""Who may call what: whoever reads from this machine, and whoever sends a token with the scope."""

import logging

from flask import request

from daemon.api.calls import Refusal
from daemon.api.tokens import Token, TokenError, TokenFile
from monitoring.hosts import is_loopback

log = logging.getLogger(__name__)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="codelupe"'}


def authorise(tokens: TokenFile, scope: str, *, changes: bool) -> Token | None:
    """Return whose token was sent; None for one who reads from this machine. Raises Refusal."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    if not kind:
        if changes or not is_loopback(request.remote_addr or ""):
            raise Refusal(401, "token-missing", "send Authorization: Bearer TOKEN", headers=_CHALLENGE)
        return None
    try:
        token = tokens.find(secret.strip()) if kind.lower() == "bearer" else None
    except TokenError as error:
        log.error("the tokens cannot be read: %s", error, extra={"event": "tokens_unreadable"})
        raise Refusal(503, "tokens-unreadable", "the service's file of tokens is damaged: see its log") from error
    if token is None:
        log.warning("a call with an unknown token", extra={"event": "api_call_refused", "path": request.path})
        raise Refusal(401, "token-unknown", "there is no such token: see `codelupe token list`", headers=_CHALLENGE)
    if scope not in token.scopes:
        detail = f"token {token.name} has not the scope {scope}"
        log.warning("%s", detail, extra={"event": "api_call_refused", "path": request.path})
        raise Refusal(403, "scope-missing", detail)
    return token
