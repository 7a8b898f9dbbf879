"""From a provider's refusal to a request that it accepts: what the refusal is about, and what cures it.

1. :mod:`.complaints` takes the refusal apart; :mod:`.redaction` cuts the client's content out of its text.
2. :mod:`.refusal_words` reads each complaint: the words that it blames, the kind of objection, what it
allows.  3. :mod:`.subjects` finds the part of the request that is blamed, in any spelling or by a synonym.
4. :mod:`.cures` has a ladder of cures for each subject.

Pure: the same refusal of the same request leads to the same cures.
"""

from __future__ import annotations

import re
from typing import Collection, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

from ..convert.profile import Profile
from ..types import Json
from .complaints import Complaint
from .cures.ladder import Cure
from .cures.thinking import LEVELS
from .cures.tools import CHOICES, FORMATS
from .redaction import Redaction, client_texts
from .refusal_words import Reading
from .sent import Sent
from .subjects import BY_PATH, Subject, named_subjects


class Diagnosis(NamedTuple):
    """What a refusal is about, and the cure. ``form``: see :class:`Subject`."""

    subject: str
    form: str
    cure: Cure


def diagnose(
    complaints: Sequence[Complaint], body: Json, profile: Profile, tried: Collection[Tuple[str, str]] = ()
) -> List[Diagnosis]:
    """The cures for a refusal.

    :param complaints: what the provider objects to
    :param body: the request that it refused
    :param profile: what the request was made with
    :param tried: (subject, rung) of the cures that have failed in this turn
    :returns: a cure for each subject that the provider named by a path, or else one for the subject that fits
        its words best; [] for a refusal that is not about the form of the request, or has no cure
    """
    sent = Sent(body, profile)
    redaction = Redaction([c.text for c in complaints], client_texts(body), _vocabulary(sent))
    readings = [_reading(complaint, redaction.cut(complaint.text), sent) for complaint in complaints]
    readings = [reading for reading in readings if reading.is_objection or reading.path]
    named: Dict[str, Tuple[int, Subject, List[Reading]]] = {}
    for reading in readings:
        for strength, subject in named_subjects(reading, sent):
            best, _, about = named.get(subject.name, (0, subject, []))
            named[subject.name] = max(best, strength), subject, [*about, reading]
    ranked = sorted(named.values(), key=lambda entry: -entry[0])
    found: List[Diagnosis] = []
    for strength, subject, about in ranked:
        if found and strength < BY_PATH:
            break
        cure = _first_that_changes(subject, about, sent, tried)
        if cure is not None:
            found.append(Diagnosis(subject.name, subject.form, cure))
    return found


def _reading(complaint: Complaint, text: str, sent: Sent) -> Reading:
    """The complaint; without a path of its own, it gets the one in its text."""
    return Reading(complaint._replace(path=complaint.path or _path_in(text, sent)), text)


def _first_that_changes(
    subject: Subject, about: Sequence[Reading], sent: Sent, tried: Collection[Tuple[str, str]]
) -> Optional[Cure]:
    for cure in subject.ladder(sent, about):
        changes = cure.refused or sent.profile.override(cure.override) != sent.profile
        if changes and (subject.name, cure.rung) not in tried:
            return cure
    return None


def _vocabulary(sent: Sent) -> FrozenSet[str]:
    """The words of the API in this request, in lower case: they are not content."""
    words: List[str] = [*sent.body, *sent.roles, *sent.tools, *LEVELS, *FORMATS, *CHOICES]
    words += [key for message in sent.messages for key in message]
    words += [keyword for place in ("tools", "response_format") for keyword in sent.keywords(place)]
    return frozenset(word.lower() for word in words)


_PATH = re.compile(
    r"(?<![\w.])\$?\.?([A-Za-z_]\w*(?:(?:\[\d+\]|[.\[/]['\"]?[A-Za-z_$]\w*['\"]?\]?|[./]\d+)+))"
)


def _path_in(text: str, sent: Sent) -> Tuple[str, ...]:
    """The first path into the request in a text: ``messages.1``, ``tools[0].function.name``."""
    for match in _PATH.finditer(text):
        steps = tuple(re.findall(r"[\w$]+", match[1]))
        while steps and steps[0] in ("body", "request"):
            steps = steps[1:]
        if steps and (steps[0] in sent.body or steps[0] in ("messages", "message", "tools")):
            return steps
    return ()
