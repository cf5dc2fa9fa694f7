"""Secrets that somebody committed: rules of our own, from the providers' published formats, found in linear time."""

from sourcecode.secrets.scan import MAX_PLACES as MAX_PLACES
from sourcecode.secrets.scan import OTHER_RULES as OTHER_RULES
from sourcecode.secrets.scan import TOKEN_RULES as TOKEN_RULES
from sourcecode.secrets.scan import VENDOR_RULES as VENDOR_RULES
from sourcecode.secrets.scan import Secret as Secret
from sourcecode.secrets.scan import describe as describe
from sourcecode.secrets.scan import digest as digest
from sourcecode.secrets.scan import find_secrets as find_secrets
from sourcecode.secrets.scan import keep_apart as keep_apart
