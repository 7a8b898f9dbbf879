"""Cures for refusals: for each subject that a refusal can be about, a short ladder with the mildest cure
first.

A ladder is a generator of :class:`~.ladder.Cure`; the first one that changes something, and has not been
tried in this turn, is taken.  Most cures are overrides of profile fields, so the log can name the lines that
make them permanent.  The others leave out a part of what the client has sent, and name it by its fingerprint.
"""
