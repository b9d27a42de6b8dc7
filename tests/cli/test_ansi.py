import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.ansi import colored, plain


@pytest.mark.parametrize(
    ("text", "safe", "bare"),
    [
        ("plain", "plain", "plain"),
        ("a\tb", "a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mrgb", "\x1b[38;2;1;2;3mrgb\x1b[0m", "rgb"),
        ("\x1b[2J\x1b[Hwiped", "wiped", "wiped"),
        ("\x1b]0;title\x07text", "text", "text"),
        ("\x1b]52;c;aGk=\x1b\\text", "text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel", "sixel"),
        ("\x1bcreset", "reset", "reset"),
        ("\x9b2Jc1", "c1", "c1"),
        ("bell\x07 back\x08 null\x00", "bell back null", "bell back null"),
        ("\u202egnp.exe", "gnp.exe", "gnp.exe"),
        (" 10%\r 50%\r100%", "100%", "100%"),
        ("done\r", "done", "done"),
        ("\r\r", "", ""),
        ("cut \x1b[3", "cut 3", "cut 3"),
        ("grüße 你好 🚢", "grüße 你好 🚢", "grüße 你好 🚢"),
    ],
)
def test_what_comes_through(text: str, safe: str, bare: str) -> None:
    assert colored(text) == safe
    assert plain(text) == bare


@given(st.text(alphabet=st.sampled_from("\x1b\x9b\x9d[]?;:0123m\x07\\JHP_^Xab \r\n\t\x00\x7f\u202e")))
def test_nothing_that_moves_a_cursor_ever_does(text: str) -> None:
    assert not any(character < " " and character != "\t" for character in plain(text))
    stripped = colored(text)
    while "\x1b" in stripped:
        before, _, rest = stripped.partition("\x1b")
        parameters, found, rest = rest.partition("m")
        assert found
        assert parameters.startswith("[")
        assert set(parameters[1:]) <= set("0123456789;:")
        stripped = before + rest
    assert not any(character < " " and character != "\t" for character in stripped)
