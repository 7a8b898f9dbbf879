"""Reads one complaint: which words it blames, what it objects to in them, and what it says would be allowed.

Providers word the same objection in many ways, so the words are brought to one spelling first
(:func:`normalized`: ``reasoningEffort``, ``reasoning_effort`` and "reasoning effort" are the same), and kinds
of objections are families of words (:data:`OBJECTIONS`).  A sentence such as "unknown field x, expected one
of a, b" blames x and allows a and b; the words after the turning point ("expected one of") are never blamed.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice
from typing import Dict, List, Pattern, Sequence, Tuple

from .complaints import Complaint

MAX_TURNING_POINTS = 5  # turning points of one text
QUOTES = "`'\"“”‘’«»"
# Camel case, and characters that join words: an underscore, a hyphen, a dot inside a word but not in a
# number.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")
_JOINT = re.compile(r"(?<=\w)[_\-]+(?=\w)|(?<=[A-Za-z_])\.(?=[A-Za-z_])")


def normalized(text: str) -> str:
    """The text in lower case, with its words separated and its quotation marks kept."""
    return _JOINT.sub(" ", _HUMP.sub(" ", text).replace("_", " ").replace("’", "'")).lower()


def _family(words: str) -> Pattern[str]:
    return re.compile("|".join(line.strip() for line in words.strip().splitlines()))


# Kinds of objections, as patterns over normalized text. One complaint may be of several kinds.
OBJECTIONS: Dict[str, Pattern[str]] = {
    "unsupported": _family(
        r"""
        not (?:currently |yet )?(?:be )?(?:support|allow|permit|available|accept|enabl|implement|recogni|known|compatible|used|expect)
        unsupported|unavailable|unknown|unrecogni|unexpected|extra (?:input|param|field|prop|key|forbidden)|extra forbidden|forbidden
        additional propert|no such|cannot find|disallow|invalid field
        (?:does ?n[o']t|can ?not|can't|cannot|don't|do not) (?:support|accept|take|allow|have|use|handle|process|be used|be set|be combined)
        only (?:supports?|accepts?|works?|takes?|allows?|.{1,60}(?:is|are) (?:supported|allowed|accepted|permitted))|no endpoints? found
        should not (?:exist|be (?:set|sent|present|used))
        not an? (?:allowed|supported|known|recogni)|not one of
        不支持|未知|不可用|无法识别
        """
    ),
    "value": _family(
        r"""
        invalid|must be|should be|expected|not an? valid|not valid|one of|supported (?:\w+ )?values?|incorrect|illegal|wrong|bad
        out of range|range of|greater than|less than|exceed|too (?:long|large|many|big|small|short|high|low)|at (?:most|least)|maximum
        does not (?:match|support)|failed to (?:parse|deserialize|convert|compile|initialize)|(?:cannot|unable to|could not) \w+
        conversion failed|malformed|must start|mismatch|not supported
        无效|非法|有误|不合法|错误
        """
    ),
    "missing": _family(
        r"""
        missing|required|require|no (?:\w+ ){1,3}found|not found|must (?:be (?:set|provided|passed|present|included|non ?empty|specified)|have|contain|include|not be empty)
        not set|not (?:been )?provided|not defined|undefined|empty|blank|null|\bnil\b|none ?type|none is not|has no|without
        不能为空|缺少|缺失|必填|为空
        """
    ),
    "order": _family(
        r"""
        beginning|first|\bstart|before|\bafter\b|alternat|order|follow|preced|consecutive|in a row|only one|single|multiple|more than one
        \blast\b|\bend with|\bfinal\b|position|leading|\bone system
        """
    ),
    "mandatory": _family(
        r"""
        mandatory|(?:cannot|can't|can not) be (?:disabled|turned off|switched off)|must (?:be|stay) enabled|always (?:on|enabled)
        (?:cannot|can't|can not) (?:disable|turn off|stop|switch off)
        """
    ),
}

# The words that would be allowed follow these.
_TURNING_POINT = re.compile(
    r"\bexpected(?: one of)?\b|\bsupported (?:[a-z]+ ){0,2}(?:values?|types?|options?|levels?|efforts?)\b"
    r"|\b(?:must|should|can only|may only|needs? to)(?: either)? be\b(?! satisfied)|\bnot one of\b|\bone of\b"
    r"|(?<!not )\b(?:allowed|valid|possible|available|permitted|accepted)(?: [a-z]+){0,2}(?: are| is|:)"
    r"|\b(?:please )?use\b|\bset [\w.`'\"]+ to\b|\b(?:currently )?only\b|\bsupports? only\b|\bdid you mean\b|\binstead\b",
    re.I,
)
_SENTENCE = re.compile(r"[.;!?](?:\s|$)|\n\n")
_WORD = re.compile(r"[A-Za-z][\w.\-]*")


class Reading:
    """One complaint, read.

    ``text`` is its whole text without the client's content, ``path`` the path into the request that it names.
    """

    def __init__(self, complaint: Complaint, text: str) -> None:
        self.text = text
        self.path = complaint.path
        self.code = normalized(complaint.code)
        self.words = normalized(text)

    @cached_property
    def _split(self) -> Tuple[str, Tuple[str, ...]]:
        """The text before the first turning point that allows something, and what the turning points
        allow.
        """
        blamed, allowed = self.text, []
        for turn in islice(_TURNING_POINT.finditer(self.text), MAX_TURNING_POINTS):
            end = _SENTENCE.search(self.text, turn.end())
            clause = self.text[turn.end() : end.start() if end else len(self.text)]
            found = re.findall(rf"[{QUOTES}]([\w.\-/]+)[{QUOTES}]", clause) or _WORD.findall(clause)
            if found and blamed is self.text:
                blamed = self.text[: turn.start()]
            allowed += found
        return blamed, tuple(allowed)

    @cached_property
    def blamed(self) -> str:
        """The normalized words that the complaint is about; all of them when it begins with what is allowed."""
        blamed = normalized(self._split[0])
        return blamed if re.search(r"\w{3}", blamed) else self.words

    def allowed(self, vocabulary: Sequence[str]) -> List[str]:
        """The words of ``vocabulary`` that the complaint says are allowed."""
        return [word for word in vocabulary if word in {found.lower() for found in self._split[1]}]

    def objects(self, kind: str) -> bool:
        """Is it an objection of this kind?"""
        return OBJECTIONS[kind].search(f"{self.words} {self.code}") is not None

    @property
    def is_objection(self) -> bool:
        return any(self.objects(kind) for kind in OBJECTIONS)

    def says(self, pattern: str) -> bool:
        """Does its whole text match? The pattern is for normalized text."""
        return re.search(pattern, self.words) is not None

    def blames(self, pattern: str) -> bool:
        return re.search(pattern, self.blamed) is not None

    def marks(self, word: str) -> bool:
        """Is ``word`` marked as a word of the request: in quotes, in a list, after "parameter" or before a
        colon?
        """
        form = re.escape(normalized(word))
        labels = r"(?:param|parameter|field|argument|property|propertie|key|keyword|kwarg|option|name|variant|value)"
        return self.blames(
            rf"[{QUOTES}\[({{,:]\s?{form}(?:\s?[{QUOTES}\])}},:]|\.?\s*$)"
            rf"|{labels}s?\W{{1,4}}{form}\b|\b{form}\W{{0,2}} {labels}\b|^\W*{form}\W*:"
        )
