from io import StringIO

from scripts.progress_line import Progress, ProgressLine

ERASE = "\r\x1b[K"


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_terminal_gets_one_line_rewritten() -> None:
    terminal, clock = Terminal(), Clock()
    line = ProgressLine("bars", terminal, clock)
    clock.now_s = 40.0
    line.show(Progress(1, 4, "60 bars"))
    assert terminal.getvalue() == f"{ERASE}bars [######..................] 1 of 4 requests, 60 bars, 2:00 left"
    line.show(Progress(4, 4, "90 bars"))
    assert terminal.getvalue().split(ERASE)[-1] == "bars [########################] 4 of 4 requests, 90 bars"
    assert "\n" not in terminal.getvalue()


def test_other_words_take_the_lines_place_and_it_comes_again() -> None:
    terminal = Terminal()
    line = ProgressLine("bars", terminal)
    line.say("a fault")
    assert terminal.getvalue() == "a fault\n"
    line.show(Progress(1, 2))
    line.say("another")
    assert terminal.getvalue().endswith(f"requests, 0:00 left{ERASE}another\n")
    line.clear()
    assert terminal.getvalue().endswith("another\n")


def test_elsewhere_each_tenth_is_a_plain_line() -> None:
    stream = StringIO()
    line = ProgressLine("bars", stream)
    for done in range(1, 31):
        line.show(Progress(done, 30, "x"))
    line.clear()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "bars: 3 of 30 requests, x"
    assert "\x1b" not in stream.getvalue()


def test_one_step_is_not_worth_a_line() -> None:
    stream = StringIO()
    ProgressLine("bars", stream).show(Progress(1, 1))
    assert stream.getvalue() == ""


def test_nothing_to_do_is_all_done() -> None:
    assert Progress(0, 0).tenths == 10
    terminal = Terminal()
    ProgressLine("bars", terminal).show(Progress(0, 0))
    assert "########" in terminal.getvalue()
