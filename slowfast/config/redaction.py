"""Secrets are taken out of whatever is printed or saved: keys and tokens of known shapes, and what is named as one.

No shape occurs in hashes, paths or class names, which would be damaged: a token counts from a length on, and with a
mixture of characters, that no word has. A key of 40 hexadecimal digits looks like a commit; it is known by its name.
"""

from __future__ import annotations

import re
import sys
import traceback
from types import TracebackType

HIDDEN = "***"

_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    # OpenAI, Anthropic, OpenRouter: sk-..., sk-proj-..., sk-ant-api03-...; words joined by hyphens are shorter.
    r"(sk-(?:proj-|svcacct-|admin-|ant-|or-)?)(?=[\w-]{0,80}\d)(?:(?=[\w-]{0,80}?\w{12})|(?=[\w-]{40}))[\w-]+"
    r"|(hf_)(?:(?=[a-z0-9]{0,40}[A-Z])(?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{12,}|[A-Za-z0-9]{30,})"
    r"|(gh[pousr]_|github_pat_|gsk_)\w{20,}"
    r"|(glpat-|nvapi-)[\w-]{20,}"
    r"|(AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"
    r"|(xox[abeoprs]-)[0-9A-Za-z-]{10,}"
    r"|(AIza)[\w-]{30,}"
    r"|(eyJ)[\w-]{10,}\.[\w-]{10,}\.[\w-]{6,}"  # JSON Web Token
    r")",
    re.ASCII,
)
_HEADER = re.compile(
    r"\b((?:Proxy-)?Authorization[\"']?\s*[:=]\s*[\"']?(?:(?:Bearer|Basic|Token|Digest)\s+)?)(?!(?:Bearer|Basic|Token|Digest)\b)[^\s\"',;*][^\s\"',;]*"
    r"|\b(Bearer\s+)(?:(?=[\w.~+/=-]{0,80}\d)[\w.~+/=-]{6,}|[\w.~+/=-]{20,})",
    re.ASCII | re.IGNORECASE,
)
_URL = re.compile(r"(?<=://)[^/\s\"'<>]{1,400}(?=@)")
_QUERY = re.compile(
    r"([?&](?:key|token|sig|signature|code|X-Amz-(?:Signature|Credential|Security-Token))=)[^\s&\"'#]+", re.I
)

_NAME = (
    r"(?:api|access|secret|private|auth|account)[_-]?key(?:[_-]?id)?|(?:access|auth|api|hf|bearer|refresh)[_-]?token"
    r"|client[_-]?secret|secret|pass(?:word|wd|phrase)|credentials"
)
_NO_VALUE = r"(?!(?:null|none|true|false)\b|\*\*\*)"
_BARE = r"(?:[^\s\"',;&()\[\]{}\\]|\\(?![\"']))+"  # stops before a quote that JSON has escaped
_QUOTED = r"\"[^\"\n]+\"|'[^'\n]+'"
_NAMED = re.compile(
    # After "=" any value; after ":" only one that ends there, since prose goes on.
    rf"((?<![A-Za-z])(?:\w{{0,40}}[_.-])?(?:{_NAME})[\"']?\s*=\s*){_NO_VALUE}(?:{_QUOTED}|{_BARE})"
    rf"|((?<![A-Za-z])(?:\w{{0,40}}[_.-])?(?:{_NAME})[\"']?\s*:\s*){_NO_VALUE}"
    rf"(?:{_QUOTED}|{_BARE}(?=\s*(?:$|[\"',;)}}\]])))"
    rf"|((?<!\S)--(?:[\w-]{{0,40}}-)?(?:{_NAME}|token)\s+){_NO_VALUE}(?!-)(?:{_QUOTED}|\S+)",
    re.ASCII | re.IGNORECASE | re.MULTILINE,
)
_VARIABLE = re.compile(rf"(?<![A-Za-z0-9])([A-Z0-9_]{{0,40}}_TOKEN[\"']?\s*[=:]\s*){_NO_VALUE}(?:{_QUOTED}|{_BARE})")


def redact(text: str) -> str:
    """Replace API keys, tokens and passwords by their kind and `***`.

    Args:
        text: any text, for instance a whole log line.

    Returns: the text without the secret parts; a second call changes nothing.
    """
    for pattern in (_URL, _HEADER, _TOKENS, _QUERY, _NAMED, _VARIABLE):
        text = pattern.sub(_hidden, text)
    return text


def _hidden(match: re.Match[str]) -> str:
    quote = match[0][-1] if match[0][-1] in "\"'" else ""  # JSON stays JSON
    return next((group for group in match.groups() if group), "") + quote + HIDDEN + quote


def redact_tracebacks() -> None:
    """Let this process print the traceback of a defect without secrets; for the main module of a program alone."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = hook
