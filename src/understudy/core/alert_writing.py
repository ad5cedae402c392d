"""Write one message out of what is to be told: subject and body, in the channel's language.

Called by core.alerting. The words are those of core.alert_words; a line of theirs is left out where the facts do not fill it.
Reasons come in English from whoever found them and are put into the channel's language by core.alert_reasons.
Pure; decides neither when nor to whom something is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter
from types import MappingProxyType
from typing import Final

from understudy.core.alert_reasons import reason_in
from understudy.core.alert_words import PHRASES, SENTENCES, TESTS, TEXTS, UNITS, Saying
from understudy.core.upkeep import Language, Severity

# A phone shows that many lines at a glance; a rack may have more.
NOTES_MAX: Final = 12
_NAMES_MAX: Final = 4
# What a person may do, in a message about several.
_MAY_MAX: Final = 3
# Facts that are reasons in words.
_REASONS: Final = frozenset({"reason", "detail", "mistakes"})
_LASTING: Final = frozenset({Saying.BEGAN, Saying.REMINDS})
_STILL_DOWN: Final = "backend.down"
# What says of a backend that is down all the more.
_GRAVER: Final = frozenset({"restart.failed", "restart.gave_up"})
# How much each severity matters, as a number.
RANK: Final = MappingProxyType({severity: rank for rank, severity in enumerate(Severity)})


@dataclass(frozen=True, slots=True)
class Cost:
    """What an incident has cost: exchanges that failed, and those that other backends saved."""

    failed: int = 0
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to tell. `since` is a local time of day, `lasted_s` from then on, `times` how often; `cost` None: not known."""

    saying: Saying
    event: str
    severity: Severity
    who: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    lasted_s: float = 0.0
    times: int = 1
    is_on: bool = True
    cost: Cost | None = None


class _Facts(dict[str, str]):
    """What fills a template; a fact that is missing is a gap there, and no fault that would keep the message back."""

    def __missing__(self, name: str) -> str:
        return ""


def write(notes: Sequence[Note], language: Language) -> tuple[str, str]:
    """Return subject and body of one message about all `notes`, the most important first.

    That a backend is down is left out where it is told that restarting it failed or was given up.
    """
    shown = [_in(language, note) for note in sorted(_joined(notes), key=lambda note: -RANK[note.severity])]
    subject = _subject(shown, language)
    if len(shown) == 1:
        return subject, "\n".join([_sentence(shown[0], language), *_below(shown[0], language)])
    phrases = PHRASES[language]
    lines = [_sentence(note, language) + _aside(note, language) for note in shown[:NOTES_MAX]]
    if len(shown) > NOTES_MAX:
        lines.append(phrases["more"].format(count=len(shown) - NOTES_MAX))
    cost = next((note.cost for note in shown if note.cost is not None and is_over(note)), None)
    return subject, "\n".join([*lines, *_cost(cost, language), *_all_may(shown, language)])


def write_test(channel: str, language: Language) -> tuple[str, str]:
    """Return subject and body of a test message to `channel`, its safe name."""
    subject, body = TESTS[language]
    return subject, body.format(channel=channel)


def duration(seconds: float, language: Language) -> str:
    """Return a time span as a person says it, in one or two units: less than a second, 12 s, 2 min, 1 h 5 min, 2 d 3 h."""
    second, minute, hour, day = UNITS[language]
    whole = max(0, round(seconds))
    if not whole:
        return PHRASES[language]["moment"]
    if whole < 60:
        return f"{whole} {second}"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} {minute}"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} {hour} {minutes} {minute}" if minutes else f"{hours} {hour}"
    days, hours = divmod(hours, 24)
    return f"{days} {day} {hours} {hour}" if hours else f"{days} {day}"


def _joined(notes: Sequence[Note]) -> list[Note]:
    """Return the notes with one only of a backend that is down and whose restart does not help."""
    graver = {note.who for note in notes if note.event in _GRAVER and not is_over(note)}
    return [note for note in notes if not (note.who in graver and note.event == _STILL_DOWN and note.saying in _LASTING)]


def _in(language: Language, note: Note) -> Note:
    facts = {name: reason_in(language, fact) if name in _REASONS else fact for name, fact in note.facts.items()}
    return replace(note, facts=facts)


def is_over(note: Note) -> bool:
    """Whether it says that something has come to its end."""
    return note.saying in (Saying.ENDED, Saying.WAS) or (note.saying is Saying.STEADY and not note.is_on)


def _subject(notes: Sequence[Note], language: Language) -> str:
    """One title for each kind of note, with the names that it is about."""
    phrases = PHRASES[language]
    comma = phrases["comma"]
    kinds: dict[str, list[Note]] = {}
    for note in notes:
        words = TEXTS[language][note.event]
        title = words.over if is_over(note) else words.title
        kinds.setdefault(title + (phrases["restless"] if note.saying is Saying.FLAPS else ""), []).append(note)
    titles = []
    for title, alike in kinds.items():
        names = list(dict.fromkeys(note.who for note in alike if note.who))
        who = comma.join(names[:_NAMES_MAX]) + (f" +{len(names) - _NAMES_MAX}" if len(names) > _NAMES_MAX else "")
        titles.append(" ".join(title.format_map(_Facts({**alike[0].facts, "who": who})).split()))
    return phrases["lead"] + phrases["stop"].join(titles)


def _sentence(note: Note, language: Language) -> str:
    words = TEXTS[language][note.event]
    phrases = PHRASES[language]
    often = phrases["often"].format(times=note.times) if note.times > 1 else ""
    lasted = duration(note.lasted_s, language)
    facts = _Facts(note.facts)
    facts |= {
        "who": words.who.format(who=note.who),
        "on": words.on,
        "off": words.off,
        "lasts": words.lasts,
        "state": words.on if note.is_on else words.off,
        "since": note.since,
        "lasted": (phrases["before_digit"] if lasted[0].isdigit() else "") + lasted,
        "times": str(note.times),
        "counted": phrases["once"] if note.times == 1 else phrases["counted"].format(times=note.times),
    }
    if note.saying is Saying.HAPPENED:
        return words.told.format_map(facts).strip() + often
    sentence = SENTENCES[language][note.saying].format_map(facts).strip()
    return sentence + (often if note.saying in (Saying.ENDED, Saying.WAS) else "")


def _below(note: Note, language: Language) -> list[str]:
    if is_over(note):
        return [*_why(note, language), *_cost(note.cost, language)]
    facts = {**note.facts, "who": note.who}
    lines = [line.format_map(facts) for line in TEXTS[language][note.event].lines if _fills(line, facts)]
    return [*lines, *_may(note, language)]


def _may(note: Note, language: Language) -> list[str]:
    """Return the line that says what a person may do."""
    words = dict(TEXTS[language][note.event].may_of).get(note.who, TEXTS[language][note.event].may)
    facts = {"who": note.who}
    return [PHRASES[language]["may"].format(may=words.format_map(facts))] if words and _fills(words, facts) else []


def _all_may(notes: Sequence[Note], language: Language) -> list[str]:
    """Return what a person may do about those that need one, each line once."""
    pressing = [note for note in notes if note.severity is Severity.ERROR and not is_over(note)]
    lines = dict.fromkeys(line for note in pressing for line in _may(note, language))
    return list(lines)[:_MAY_MAX]


def _fills(line: str, facts: Mapping[str, str]) -> bool:
    return all(facts.get(name) for _, name, _, _ in Formatter().parse(line) if name is not None)


def _aside(note: Note, language: Language) -> str:
    return "".join(f" {line}" for line in _why(note, language))


def _why(note: Note, language: Language) -> list[str]:
    """Return the line that says why; none where whoever hears that it is over has heard that."""
    line = TEXTS[language][note.event].aside or PHRASES[language]["why"]
    is_news = note.saying is Saying.WAS or not is_over(note)
    return [line.format_map(note.facts)] if is_news and _fills(line, note.facts) else []


def _cost(cost: Cost | None, language: Language) -> list[str]:
    if cost is None:
        return []
    phrases = PHRASES[language]
    if not cost.failed and not cost.moved:
        return [phrases["no_cost"]]
    counted = {
        name: phrases[f"{name}_{'none' if not count else 'one' if count == 1 else 'many'}"].format(count=count)
        for name, count in (("failed", cost.failed), ("moved", cost.moved))
    }
    return [phrases["cost"].format_map(counted)]
