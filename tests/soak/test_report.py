"""What is printed and written: the table, the totals, a violation with all that is needed to look into it."""

import json
from collections import Counter

from tests.soak.bounds import Growth
from tests.soak.injector import Round
from tests.soak.judge import Finding
from tests.soak.kinds import KINDS
from tests.soak.report import Outcome, as_json, kinds_table, round_line, summary, violation_text
from tests.soak.watch import Verdicts, Violation

NOW = 1_800_000_000.0
LIE = Finding("false live", "AAPL", NOW, "shows 1/2; 3/4 was sent")
ROUNDS = [
    Round(("tcp_drop",), NOW, NOW + 1, 0.5),
    Round(("tcp_drop",), NOW + 5, NOW + 6, 1.5),
    Round(("tcp_drop", "redis_killed"), NOW + 10, NOW + 12, 9.0),
    Round(("no_ack",), NOW + 20, NOW + 21, None, "the feed is connecting"),
]


def outcome(*violations: Violation) -> Outcome:
    counts = Counter(one.finding.rule for one in violations)
    growths = [Growth("gateway", 1, 100.0, 110.0), Growth("gateway", 2, 90.0, 95.0)]
    return Outcome(7, NOW, NOW + 60, ROUNDS, violations, counts, 100, [0.01, 0.02], 12, growths)


def test_recovery_counts_for_a_fault_that_came_alone() -> None:
    lines = {line[:12].strip(): line[12:].split()[:3] for line in kinds_table(ROUNDS, KINDS).splitlines()}
    assert lines["tcp_drop"] == ["3", "0.5", "1.5"]
    assert lines["redis_killed"] == ["1", "its", "return,"]
    assert lines["two at once"] == ["1", "9.0", "9.0"]
    assert lines["no_ack"][0] == "1"
    assert "mute" not in lines


def test_the_totals_say_what_was_found() -> None:
    assert "5 faults in 60 s, seed 7: no violation" in summary(outcome())
    said = summary(outcome(Violation(LIE, ("mute",))))
    assert "1 violations" in said
    assert "false live: seen 1 times" in said
    assert "gateway: 110 MB at most, 10 MB grown at most, 2 processes" in said


def test_a_violation_names_time_fault_row_truth_and_seed() -> None:
    said = violation_text(Violation(LIE, ("mute", "redis_killed")), 7)
    for part in ("08:00:00", "false live", "AAPL", "mute + redis_killed", "seed 7", "3/4 was sent"):
        assert part in said


def test_a_fault_that_did_not_pass_is_seen_at_once() -> None:
    assert "NOT RECOVERED" in round_line(4, ROUNDS[3])
    assert "well after   0.5 s" in round_line(1, ROUNDS[0])


def test_the_file_for_machines_is_json_and_whole() -> None:
    read = json.loads(json.dumps(as_json(outcome(Violation(LIE, ("mute",))))))
    assert (read["seed"], read["faults"]) == (7, 5)
    assert read["rounds"][3]["recovery_seconds"] is None
    assert read["violations"][0]["under_way"] == ["mute"]


def test_the_same_finding_is_told_once_in_a_while_and_counted_always() -> None:
    told: list[Violation] = []
    verdicts = Verdicts(told.append, lambda: ("mute",))
    for tenth in range(250):
        verdicts.add(LIE._replace(at_s=NOW + tenth / 10))
    verdicts.add(LIE._replace(subject="KO"))
    assert [one.finding.subject for one in told] == ["AAPL", "AAPL", "KO"]
    assert verdicts.counts == {"false live": 251}
    assert verdicts.violations == told
