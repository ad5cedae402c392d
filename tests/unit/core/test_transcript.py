"""Plays of what a broken answer needs, and of which means carries it."""

import pytest

from understudy.core.transcript import CARRIES, CallDraft, Case, Means, Shape, Transcript, Wish, cases_of, is_carried

WISH = Wish(Shape.OPENAI_CHAT)


def test_text_and_reasoning_are_joined_and_grow() -> None:
    transcript = Transcript()
    assert (transcript.text, transcript.reasoning) == ("", "")
    transcript.texts += ["On", "ce"]
    transcript.reasonings += ["H", "m"]
    assert (transcript.text, transcript.reasoning) == ("Once", "Hm")
    transcript.texts.append(" upon")
    assert (transcript.text, transcript.text) == ("Once upon", "Once upon")


def test_what_is_given_stands_for_a_calls_arguments_until_pieces_come() -> None:
    call = CallDraft(given='{"a":1}')
    assert call.arguments == '{"a":1}'
    call.pieces += ['{"b"', ":2}"]
    assert (call.arguments, call.arguments) == ('{"b":2}', '{"b":2}')


def test_everything_that_grows_counts_for_the_size() -> None:
    calls = [CallDraft(0, "now", "id", pieces=["{", "}"]), CallDraft(1)]
    assert Transcript(texts=["a", "b"], reasonings=["c"], calls=calls).size_characters == 10
    assert Transcript().size_characters == 0


@pytest.mark.parametrize(
    ("transcript", "cases"),
    [
        (Transcript(texts=["Once"], choices=1), set()),
        (Transcript(choices=2), {Case.SEVERAL_CHOICES}),
        (Transcript(has_tool_call=True), {Case.TOOL_CALL}),
        (Transcript(has_audio=True), {Case.AUDIO}),
        (Transcript(reasonings=["Hm"]), {Case.REASONING}),
        (Transcript(reasonings=["Hm"], texts=["Once"]), {Case.REASONED}),
    ],
)
def test_what_was_received_tells_what_must_be_carried(transcript: Transcript, cases: set[Case]) -> None:
    assert cases_of(WISH, transcript) == cases
    assert cases_of(Wish(Shape.OPENAI_CHAT, cases=frozenset({Case.IMAGES})), transcript) == cases | {Case.IMAGES}


@pytest.mark.parametrize("means", Means)
def test_every_means_carries_plain_text_and_only_what_it_names(means: Means) -> None:
    assert is_carried(means, frozenset())
    assert is_carried(means, CARRIES[means])
    assert not is_carried(means, frozenset(Case))
