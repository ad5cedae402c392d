"""What must hold whatever happens: each invariant has a name, and a play that breaks one says which and for whom.

Called by the plays after everybody has gone and the engines are well again. Reads what clients received, what engines were
asked and what the relay told; changes nothing.
"""

import asyncio
from collections import Counter

from simulation.client import Asked, Client, Leaving, Wanted
from simulation.engine import Call
from simulation.faults import MALFORMED_EVENT, MALFORMED_LINE
from simulation.language import MalformedError, Said
from simulation.response import Response
from simulation.rightness import compare
from simulation.stage import Stage
from simulation.watching import USABLE, Turn
from simulation.writing import GOES_ON
from understudy.core.exchange import BREAKING, BROKEN_MAX
from understudy.core.record import ExchangeRecord
from understudy.core.resume import BARREN_MAX
from understudy.core.retry import FREE
from understudy.core.snapshot import ResumeRule
from understudy.errors import MEANING, Blame, FailureKind

# Attempts to go on that say nothing of the answer that is to be continued.
UNHARMED = FREE | {FailureKind.STALE_REUSE, FailureKind.RESUME_REFUSED}
# How long after a client's leaving has reached us its engine may still be at work.
LEFT_S_MAX = 1.0
# What the sweeping of deadlines, latencies and turns of the loop may add to a bound.
SLACK_S = 2.0


class Judge:
    """Collects what is wrong with one play, by invariant."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.wrong: list[str] = []
        self.calls: dict[str, list[Call]] = {}
        for engine in stage.engines.values():
            for call in engine.calls:
                self.calls.setdefault(call.tag, []).append(call)
        self.records: dict[str, tuple[float, ExchangeRecord]] = {
            record.request_id: (at_s, record) for at_s, record in stage.records
        }

    def say(self, invariant: str, what: str) -> None:
        """Note that an invariant is broken."""
        self.wrong.append(f"[{invariant}] {what}")

    # --- clients

    def judge_answers(self) -> None:
        """Every request gets exactly one answer or one honest error, and its tokens are a prefix of one answer."""
        counts = Counter(record.request_id for _, record in self.stage.records)
        for tag, count in counts.items():
            if count > 1:
                self.say("one end per exchange", f"{tag} was finished {count} times")
        for client in self.stage.clients:
            if client.mistake:
                self.say("strict HTTP", f"{[asked.tag for asked in client.asked]}: {client.mistake}")
                continue
            for asked, response in zip(client.asked, client.answers(), strict=False):
                self._judge_answer(client, asked, response)

    def _judge_answer(self, client: Client, asked: Asked, response: Response | None) -> None:
        if response is None or not response.status:
            if self._is_excused(client, asked):
                return
            self.say("exactly one answer", f"{asked.tag} ({asked.wanted}) got nothing")
            return
        try:
            if asked.wanted in (Wanted.STREAM, Wanted.WHOLE, Wanted.UNKNOWN_MODEL) and response.status < 300:
                self._judge_text(client, asked, response)
            elif response.status >= 400:
                self._judge_error(client, asked, response)
            elif not response.is_whole and not client.left_at_s and not client.is_reset:
                self.say("exactly one answer", f"{asked.tag} ({asked.wanted}) was cut and not told")
        except MalformedError as mistake:
            self.say("strict dialect", f"{asked.tag} ({asked.path}): {mistake}")

    def _is_excused(self, client: Client, asked: Asked) -> bool:
        """Nobody owes an answer to who left, or to who asked on a connection that we had closed already (RFC 9112, 9.3.1)."""
        if client.left_at_s or not asked.sent_at_s or any(one.is_last for one in client.asked[: client.asked.index(asked)]):
            return True
        record = self.records.get(asked.tag)
        if record is not None:
            return record[1].failure is FailureKind.CLIENT_SLOW
        earlier = client.answers()[: client.asked.index(asked)]
        return any(one is not None and (one.field(b"connection") == b"close" or not one.is_whole) for one in earlier) or (
            client.served is not None
            and 0.0 < client.served.closing_at_s <= asked.sent_at_s + 1.0
            and asked is not client.asked[0]
        )

    def _judge_text(self, client: Client, asked: Asked, response: Response) -> None:
        # A backend whose list is not known yet may be asked for any model.
        if asked.wanted is Wanted.WHOLE:
            said = asked.speech.read_whole(response.body) if response.is_whole else Said()
        else:
            body, delimiter = response.body, asked.speech.delimiter
            if client.left_at_s and not response.is_whole:
                body = body[: body.rfind(delimiter) + len(delimiter)] if delimiter in body else b""
            if asked.declines_resume or self.stage.published.current.plan.failover.resume is ResumeRule.OFF:
                # Nobody looks at the events of an answer that is not to be continued.
                body = body.replace(MALFORMED_LINE if asked.speech.kind == "ollama" else MALFORMED_EVENT, b"")
            said = asked.speech.read_stream(body)
        record = self.records[asked.tag][1] if asked.tag in self.records else None
        first = record.backend if record is not None else ""
        if first and record is not None:
            make = self.stage.makes[first]
            last = max((call for call in self.calls.get(asked.tag, ()) if not call.is_question), key=lambda call: call.begun_at_s)
            others = [self.stage.makes[name] for name in record.resumed_on]
            for invariant, what in compare(asked, said, make, record, others, ends_well=not last.behaviour.fault.is_blamed):
                self.say(invariant, f"{asked.tag} ({asked.path}, {make}, {asked.wanted}): {what}")
        elif said.has_content and record is not None:
            self.say("nobody else's text", f"{asked.tag} got {said.text[:100]!r}, and no backend gave it")
        self._judge_end(client, asked, response, said)

    def _judge_end(self, client: Client, asked: Asked, response: Response, said: Said) -> None:
        tag = asked.tag
        record = self.records[tag][1] if tag in self.records else None
        if response.is_whole and said.has_error and not response.lasts_until_close:
            self.say("a cut stream is told", f"{tag} had an error event and still a last chunk")
        if response.is_whole and not said.is_finished and not said.has_error:
            self.say("what looks whole is whole", f"{tag} ended like a whole answer without its terminator")
        if client.left_at_s or said.is_finished:
            return
        is_told = said.has_error or client.is_reset or (not response.is_whole and bool(client.lost_at_s))
        if not is_told or (response.lasts_until_close and not said.has_error and not client.is_reset):
            self.say("a cut stream is told", f"{tag} just ends")
        if record is None:
            return
        if record.failure is None:
            self.say("a cut stream is told", f"{tag} was cut and the record says that all is well")
        is_committed = said.has_content and said.has_error and asked.speech.kind == "openai"
        if is_committed and said.code != "stream_interrupted":
            self.say("a cut stream is told", f"{tag} was told {said.code!r}")
        if said.has_content and not said.has_error and record.failure is not FailureKind.CLIENT_SLOW and not client.is_reset:
            self.say("a cut stream is told", f"{tag} broke off without an error event ({record.failure})")

    def _judge_error(self, client: Client, asked: Asked, response: Response) -> None:
        if not response.is_whole:
            # Only an engine's own answer to what may not be repeated is passed on piece by piece.
            if not client.left_at_s and asked.wanted is not Wanted.PLAIN:
                self.say("exactly one answer", f"{asked.tag} got half an error")
            return
        if asked.wanted is Wanted.HEALTHZ:
            self.say("healthz", f"{asked.tag} got {response.status}")
            return
        is_engines_own = asked.wanted is Wanted.PLAIN and asked.tag in self.calls
        if not is_engines_own and not asked.speech.is_error_body(response.body):
            self.say("errors in the dialect", f"{asked.tag} ({asked.path}) got {response.status} {response.body[:200]!r}")
        told = response.body.decode("utf-8", "replace")
        others = {one.tag for client_ in self.stage.clients for one in client_.asked} - {asked.tag}
        if "for r" in told and any(f"for {other} " in told for other in others):
            self.say("nobody else's tokens", f"{asked.tag} was told {told[:200]}")

    # --- engines

    def judge_attempts(self) -> None:
        """Attempts go where they may, each is in the record, and nobody is blamed for what others did."""
        stage = self.stage
        for what in (*stage.violations, *stage.tally.violations):
            self.say("attempts", what)
        for what in stage.budget.violations:
            self.say("the retry budget holds", what)
        for what in stage.line.violations:
            self.say("the line is bounded", what)
        flagged = Counter(
            name for _, record in stage.records if record.is_last_resort for name in {one.backend for one in record.attempts}
        )
        for name, count in Counter(stage.tally.begun_unusable).items():
            if count > flagged[name]:
                self.say("no attempt to a backend known down", f"{name}: {count} attempts, {flagged[name]} of a last resort")
        for tag, sends in stage.sends.items():
            at = self.records.get(tag)
            # A means that an engine refuses is followed by another one, within the same attempt.
            refused = sum(1 for call in self.calls.get(tag, ()) if call.goes_on and not call.is_question)
            if at is None:
                self.say("each try is in the record", f"{tag} reached an engine and has no record")
            elif sends > len(at[1].attempts) + stage.reused_sends[tag] + refused:
                self.say("each try is in the record", f"{tag} was sent {sends} times, {len(at[1].attempts)} in the record")
        self._judge_resumes()
        self._judge_blame()

    def _judge_resumes(self) -> None:
        """Nobody goes on with an answer that may not be continued, and a seam that the client sees is in the record."""
        is_off = self.stage.published.current.plan.failover.resume is ResumeRule.OFF
        asked_by_tag = {asked.tag: asked for client in self.stage.clients for asked in client.asked}
        for tag, calls in self.calls.items():
            asked, at = asked_by_tag.get(tag), self.records.get(tag)
            if asked is None or not (asked.declines_resume or is_off):
                continue
            if any(call.goes_on for call in calls) or (at is not None and at[1].resumed_on):
                self.say("who declines is not resumed", f"{tag}: {at[1].resumed_on if at else ()}")

    def _judge_blame(self) -> None:
        faults: Counter[str] = Counter()
        for engine in self.stage.engines.values():
            faults[engine.name] += engine.machine.faults
        for name in faults:
            blamed = sum(
                1
                for _, record in self.stage.records
                for attempt in record.attempts
                if attempt.backend == name and attempt.failure is not None and MEANING[attempt.failure].blame is not Blame.NO
            )
            if blamed > faults[name]:
                self.say("no blame without a fault", f"{name} was blamed {blamed} times for {faults[name]} faults")

    def judge_leaving(self) -> None:
        """An engine whose client left stops within a second of our knowing."""
        for client in self.stage.clients:
            if client.served is None or client.habit.leaving is Leaving.HALF_CLOSE:
                continue
            known_at_s = client.served.reset_at_s
            if not known_at_s:
                continue
            for asked in client.asked:
                at_s, _ = self.records.get(asked.tag, (0.0, None))
                if at_s > known_at_s + LEFT_S_MAX:
                    self.say("a client's leaving stops its engine", f"{asked.tag} went on for {at_s - known_at_s:.3f} s")

    def judge_deadlines(self) -> None:
        """Every exchange ends within the sum of what its deadlines allow."""
        for _, record in self.stage.records:
            plan = self.stage.published.current.plan
            times = plan.timeouts
            one_s = times.connect_s + times.first_token_s + SLACK_S
            pieces = max((call.text_pieces for call in self.calls.get(record.request_id, [])), default=0)
            tempers = [engine.temper for engine in self.stage.engines.values()]
            answer_s = times.stall_s + (pieces + 10) * 10 * max((temper.gap_s for temper in tempers), default=0.0) + 60.0
            bound_s = plan.failover.hold_s + max(1, len(record.attempts)) * one_s + answer_s + plan.limits.write_idle_s
            if times.total_s:
                bound_s = min(bound_s, times.total_s + SLACK_S)
            if record.duration_s > bound_s:
                self.say("deadlines", f"{record.request_id} took {record.duration_s:.1f} s, allowed {bound_s:.1f} s")

    # --- success

    def judge_success(self, steady: str) -> None:
        """With a usable backend that never fails, no request fails before its content."""
        for client in self.stage.clients:
            for asked, response in zip(client.asked, client.answers(), strict=False):
                if not asked.is_generating or response is None or asked.tag not in self.records:
                    continue
                record = self.records[asked.tag][1]
                # What a client does not read it cannot show.
                is_reading = client.habit.stops_reading_after < 0 and not client.left_at_s
                is_empty = is_reading and record.failure is not None and not record.backend
                has_failed = response.status >= 500 or is_empty
                breaks = sum(1 for one in record.attempts if one.failure in BREAKING)
                if not has_failed or breaks >= BROKEN_MAX or record.failure in (FailureKind.CLIENT_GONE, FailureKind.CLIENT_SLOW):
                    continue
                tried = [(one.backend, str(one.failure)) for one in record.attempts]
                self.say("one usable backend is enough", f"{asked.tag}: {response.status} after {tried} with {steady} well")

    def judge_going_on(self, steady: str) -> None:
        """With a backend that never fails and can go on, a plain text breaks off after two barren parts only."""
        plan = self.stage.published.current.plan
        if plan.failover.resume is ResumeRule.OFF:
            return
        for client in self.stage.clients:
            for asked in client.asked:
                at_s, record = self.records.get(asked.tag, (0.0, None))
                if record is None or not record.backend or asked.wanted is not Wanted.STREAM or not asked.is_plain:
                    continue
                if record.failure in (None, FailureKind.CLIENT_GONE, FailureKind.CLIENT_SLOW) or asked.declines_resume:
                    continue
                first = next(i for i, one in enumerate(record.attempts) if one.backend == record.backend)
                barren = sum(1 for one in record.attempts[first + 1 :] if one.failure not in UNHARMED)
                if self.stage.makes[steady] in GOES_ON[asked.path] and barren < BARREN_MAX:
                    tried = [(one.backend, str(one.failure)) for one in record.attempts]
                    self.say("one that can go on is enough", f"{asked.tag} at {at_s:.1f} s: {record.not_resumed} after {tried}")

    def judge_waiting(self) -> None:
        """Nobody is passed by one of lower priority, nor twice by one of the same priority."""
        waiting: dict[int, Turn] = {}
        owed: dict[tuple[int, bytes], set[bytes]] = {}
        for turn in self.stage.line.turns:
            who, lane = id(turn.waiter), (turn.priority, turn.client)
            if not turn.is_leaving:
                if not turn.attempts:
                    # Who has failed somewhere waits for time to pass, too.
                    waiting[who] = turn
                continue
            waiting.pop(who, None)
            for key, still in owed.items():
                still.intersection_update({other.client for other in waiting.values() if other.priority == key[0]})
            if len(turn.waiter.record.attempts) <= turn.attempts:
                continue
            passed = [other for other in waiting.values() if other.priority > turn.priority]
            if passed:
                self.say("waiting is fair", f"{turn.tag} went before {passed[0].tag} of higher priority")
            # Whoever waited at this client's last turn and has waited since was to have one in between.
            others = {other.client for other in waiting.values() if other.priority == turn.priority} - {turn.client}
            again = owed.get(lane, set()) & others
            if again:
                self.say("waiting is fair", f"{turn.tag} of {turn.client!r} went before {again}")
            owed[lane] = others
            for (priority, _), still in owed.items():
                if priority == turn.priority:
                    still.discard(turn.client)

    # --- afterwards

    def judge_rest(self) -> None:
        """Nothing is left: no count, permit, connection, task or place in line."""
        stage = self.stage
        for target in stage.published.current.targets:
            counts = stage.tally.of(target.backend.name)
            if counts.in_flight or counts.trial_held:
                self.say("rest", f"{target.backend.name}: {counts.in_flight} in flight, trial held: {counts.trial_held}")
        for what, left in (
            ("exchanges", len(stage.relay.running)),
            ("connections", len(stage.relay.clients.connections)),
            ("waiting", len(stage.relay.line)),
            ("connecting", len(stage.pool._connecting)),
        ):
            if left:
                self.say("rest", f"{left} {what} left")
        for end in stage.network.open_ends():
            self.say("rest", f"a connection is still open: {end.label} ({'closing' if end.is_closing() else 'in use'})")
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            self.say("rest", f"tasks left: {tasks}")
        for mistake in stage.loop.mistakes:
            self.say("no exception is left alone", repr(mistake))

    def judge_recovery(self) -> None:
        """A backend that has been well for a minute serves again."""
        now_s = self.stage.loop.time()
        for target in self.stage.published.current.targets:
            counts = self.stage.tally.of(target.backend.name)
            if target.state.condition not in USABLE:
                self.say(
                    "a failed state is never final", f"{target.backend.name} is {target.state.condition}: {target.state.reason}"
                )
            if counts.ejected_until_s > now_s:
                self.say(
                    "a failed state is never final",
                    f"{target.backend.name} is ejected for {counts.ejected_until_s - now_s:.1f} s",
                )
