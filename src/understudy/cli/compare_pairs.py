"""Two answers to one prompt beside each other, and what they come to all together.

Made by cli.compare from what was measured; read by cli.compare_verdict, compare_table, compare_json and compare_html. Sends
nothing and judges nothing (compare_verdict).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_prompts import Entry
from understudy.core.color import Color
from understudy.core.likeness import likeness

COLORS = (Color.BLUE, Color.GREEN)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said of two answers: which is better, NONE for a tie and where it said nothing that counts.

    `unreadable` counts those of its two words that could not be read, `is_swayed`: it chose by the order in which they stood.
    `error` says why it could not be asked, "" it could; `is_unreached`: there was no connection to it. `is_same`: the same text
    twice, about which it was not asked.
    """

    better: Color
    unreadable: int = 0
    is_swayed: bool = False
    error: str = ""
    is_unreached: bool = False
    is_same: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether the judge was asked and said a word that counts, a tie included."""
        return not (self.unreadable or self.error or self.is_same)


@dataclass(frozen=True, slots=True)
class About:
    """What a report begins with: whom and what it is of. In `titles` and `models` blue comes first.

    `prompts` is the file's name, `at` when it was done (date, time, zone), `version` understudy's own.
    """

    titles: tuple[str, str]
    models: tuple[str, str] = ("", "")
    prompts: str = ""
    at: str = ""
    version: str = ""


@dataclass(slots=True)
class Pair:
    """One prompt with both answers.

    `unmet` says for each color why its answer is not what was expected, None where nothing was; a missing answer is not as
    expected. `similarity` is None unless both are whole.
    """

    entry: Entry
    blue: Answer
    green: Answer
    blue_unmet: tuple[str, ...] | None = None
    green_unmet: tuple[str, ...] | None = None
    similarity: float | None = None
    judged: Judged | None = None

    @property
    def is_whole(self) -> bool:
        """Whether both sides answered."""
        return not (self.blue.error or self.green.error)

    def answer(self, color: Color) -> Answer:
        """Return the answer of one color."""
        return self.blue if color is Color.BLUE else self.green

    def unmet(self, color: Color) -> tuple[str, ...] | None:
        """Return why the answer of one color is not as expected, () when it is, None when nothing was expected."""
        return self.blue_unmet if color is Color.BLUE else self.green_unmet


def pair_of(entry: Entry, blue: Answer, green: Answer) -> Pair:
    """Put two answers beside each other, and hold each against what was expected."""
    pair = Pair(entry, blue, green)
    if entry.expect is not None:
        pair.blue_unmet, pair.green_unmet = (
            ("no answer",) if answer.error else entry.expect.unmet(answer.text) for answer in (blue, green)
        )
    if pair.is_whole:
        pair.similarity = likeness(blue.text, green.text)
    return pair


@dataclass(frozen=True, slots=True)
class Total:
    """What one side came to.

    `failed` are prompts with an error or a fault of form; `ttft_s`, `speed` (characters a second) and `token_speed` are medians,
    None where nothing was measured.
    """

    color: Color
    answered: int
    errors: int
    faults: int
    failed: int
    truncated: int
    met: int
    tokens: int
    is_estimated: bool
    ttft_s: float | None
    speed: float | None
    token_speed: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge said altogether. `pairs` are those that it was asked about, or should have been.

    `blue`, `green` and `ties` (`swayed` among them) are those that it judged, `unreadable` and `unasked` the others; `error` says
    why it could not be asked, the first time. `same` are the pairs that needed no judge.
    """

    pairs: int = 0
    blue: int = 0
    green: int = 0
    ties: int = 0
    unreadable: int = 0
    swayed: int = 0
    unasked: int = 0
    same: int = 0
    error: str = ""

    @property
    def readable(self) -> int:
        """How many pairs it judged."""
        return self.pairs - self.unreadable - self.unasked


@dataclass(frozen=True, slots=True)
class Totals:
    """All pairs together. `expected` counts the prompts of which something was expected, `whole` those that both answered.

    `ttft_ratio` and `speed_ratio` are green's median to blue's over the prompts in which both were measured.
    """

    prompts: int
    whole: int
    expected: int
    blue: Total
    green: Total
    similarity: float | None
    ttft_ratio: float | None
    speed_ratio: float | None
    judgement: Judgement = field(default_factory=Judgement)


def totals_of(pairs: Sequence[Pair]) -> Totals:
    """Add the pairs up."""
    similarities = [pair.similarity for pair in pairs if pair.similarity is not None]
    return Totals(
        prompts=len(pairs),
        whole=sum(pair.is_whole for pair in pairs),
        expected=sum(pair.blue_unmet is not None for pair in pairs),
        blue=_total(pairs, Color.BLUE),
        green=_total(pairs, Color.GREEN),
        similarity=mean(similarities) if similarities else None,
        ttft_ratio=_ratio(pairs, lambda answer: answer.ttft_s),
        speed_ratio=_ratio(pairs, lambda answer: answer.speed),
        judgement=_judgement(pair.judged for pair in pairs if pair.judged is not None),
    )


def _total(pairs: Sequence[Pair], color: Color) -> Total:
    answers = [pair.answer(color) for pair in pairs]
    whole = [answer for answer in answers if not answer.error]
    return Total(
        color=color,
        answered=len(whole),
        errors=len(answers) - len(whole),
        faults=sum(bool(answer.faults) for answer in whole),
        failed=sum(bool(answer.error or answer.faults) for answer in answers),
        truncated=sum(answer.is_truncated for answer in whole),
        met=sum(pair.unmet(color) == () for pair in pairs),
        tokens=sum(answer.tokens for answer in whole),
        is_estimated=any(answer.is_estimated and answer.tokens for answer in whole),
        ttft_s=_median(answer.ttft_s for answer in whole),
        speed=_median(answer.speed for answer in whole),
        token_speed=_median(answer.token_speed for answer in whole),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _ratio(pairs: Sequence[Pair], measured: Callable[[Answer], float | None]) -> float | None:
    both = [(measured(pair.blue), measured(pair.green)) for pair in pairs if pair.is_whole]
    known = [(blue, green) for blue, green in both if blue is not None and green is not None]
    if not known:
        return None
    blue_median = median(blue for blue, _ in known)
    return median(green for _, green in known) / blue_median if blue_median else None


def _judgement(judged: Iterable[Judged]) -> Judgement:
    verdicts = list(judged)
    asked = [each for each in verdicts if not each.is_same]
    readable = [each.better for each in asked if each.is_readable]
    errors = [each.error for each in asked if each.error]
    return Judgement(
        pairs=len(asked),
        blue=readable.count(Color.BLUE),
        green=readable.count(Color.GREEN),
        ties=readable.count(Color.NONE),
        unreadable=len(asked) - len(readable) - len(errors),
        swayed=sum(each.is_swayed for each in asked),
        unasked=len(errors),
        same=len(verdicts) - len(asked),
        error=errors[0] if errors else "",
    )
