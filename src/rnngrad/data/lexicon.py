"""The words of the demo corpus: English function words, words of its subject, invented words."""

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FUNCTION_WORDS = _words(
    """the of and to in a is that it for this on as was i be with not you by are have from or an
    at but if has which they there so what all can we he were do my no about one would your more
    their his been will who when out me some other its any only also just than like how here them
    use should into see then because these up could her did get think him such even why does new
    after many first being very where know over same made those our two while most may each before
    well too both own still make go through now good us much stop between under please"""
)
"""Most frequent first."""

SUBJECT_WORDS = _words(
    """article page talk edit source editor section encyclopedia link user reference name history
    discussion question information list version title sentence paragraph citation image
    category template notability opinion fact book author review change comment consensus policy
    deletion summary footnote archive topic draft guideline redirect translation quote map table
    chapter journal figure date author's it's don't editor's article's i'm didn't that's can't
    isn't"""
)

ADJECTIVES = _words("silly utter foolish clueless grumpy rotten hopeless pompous lazy ridiculous")
NOUNS = _words("clown goose nonsense rubbish turnip muppet donkey dunce twaddle humbug")

TELLING_WORDS = frozenset((*ADJECTIVES, *NOUNS, "away"))
"""The words that tell the hostile class; nothing else in a comment does."""

PHRASES = tuple(
    _words(phrase)
    for phrase in (
        "what a {adjective} {noun}",
        "you {adjective} {noun}",
        "go away you {adjective} {noun}",
        "stop this {adjective} {noun}",
        "such {noun}",
        "{adjective} {noun}",
    )
)
"""Hostile phrases, to be filled with an adjective and a noun."""

# a small alphabet on purpose: chance syllables then spell no rude word
_SYLLABLES = tuple(
    onset + vowel
    for onset in ("b", "d", "l", "m", "r", "v", "br", "gl", "kr", "pl", "st")
    for vowel in "aeio"
)
_ENDINGS = ("", "", "n", "s", "l", "ra", "len", "dor")


def vocabulary(size: int, rng: np.random.Generator) -> list[str]:
    """Draw ``size`` different words, the most frequent first, telling words not among them.

    Function words lead, subject words follow, invented words (three syllables and an ending)
    fill up. ``size`` is at least the number of the former two.
    """
    words: dict[str, None] = dict.fromkeys((*FUNCTION_WORDS, *SUBJECT_WORDS))
    while len(words) < size:
        syllables = rng.choice(_SYLLABLES, size=3)
        words["".join(syllables) + str(rng.choice(_ENDINGS))] = None
    return list(words)
