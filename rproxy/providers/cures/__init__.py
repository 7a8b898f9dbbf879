"""What helps against a refusal, for each subject that one can be about: a short ladder, the mildest cure
first.

A ladder is a generator of :class:`~.ladder.Cure`; the first one that changes something and was not tried in
this turn is taken.  Most cures are overrides of profile fields, so the log can name the lines that make them
permanent.  The others leave out a part of what the client has sent, and name it by its fingerprint.
"""
