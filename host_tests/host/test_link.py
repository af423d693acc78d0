"""postcache.host.link, for `status --port` and for deploy: what a board tells, and its files."""

import pytest
import wasm_board

pytest.importorskip("mpremote")

from postcache.host import BoardError
from postcache.host.link import LOST, Garbled, Link

TELL = "def tell(value):\n    print('\\x1e' + repr(value))\n"


@pytest.fixture(scope="module")
def board():
    wasm_board.need()
    with wasm_board.Board() as board:
        yield board


@pytest.fixture
def link(board):
    """A link to a board in its raw REPL, which knows tell()."""
    link = Link(board.port, 30)
    try:
        link.enter_raw_repl(soft_reset=False)
        link.told(TELL)
        yield link
        link.exit_raw_repl()
    finally:
        link.close()
        assert board.wait_until_closed()


def test_values_arrive_whatever_else_is_printed(link):
    code = "print('noise')\ntell((1, 'a\\n', None))\nprint('more', end='')\ntell(b'\\x00\\xff')\n"
    assert link.told(code) == [(1, "a\n", None), b"\x00\xff"]
    assert link.told("pass") == []


def test_what_is_no_value_is_garbled(link):
    with pytest.raises(Garbled):
        link.told("print('\\x1e' + 'nonsense')")
    assert link.told("tell(1)") == [1]


def test_an_exception_on_the_board_has_its_number_and_not_its_text(link):
    with pytest.raises(BoardError, match="stopped with ValueError") as caught:
        link.told("raise ValueError('a password')")
    assert caught.value.errno is None and "password" not in str(caught.value)
    with pytest.raises(BoardError) as caught:
        link.told("open('/no/such/file')")
    assert caught.value.errno == 2


def test_a_board_that_prints_too_much_is_given_up(board):
    link = Link(board.port, 30)
    try:
        link.enter_raw_repl(soft_reset=False)
        with pytest.raises(LOST, match="too much"):
            link.told("print('x' * 2000)", most=1000)
    finally:
        link.close()
        assert board.wait_until_closed()


@pytest.mark.parametrize("size", [0, 1, 383, 384, 385, 2000])
def test_a_file_is_read_byte_for_byte(board, link, size):
    data = (bytes(range(256)) * 8)[:size]
    board.write("/data", data)
    assert link.read("/data") == data


def test_a_file_with_another_checksum_is_garbled(board, link):
    board.write("/data", b"x" * 1000)
    link.told(  # what is told of a file is not what is in it
        "def tell(value):\n"
        "    if isinstance(value, bytes): value = b'AAAA' + value[4:]\n"
        "    print('\\x1e' + repr(value))\n"
    )
    with pytest.raises(Garbled):
        link.read("/data")


def test_a_prompt_is_told_from_a_program():
    wasm_board.need()
    with wasm_board.Board() as board:
        for main, says, waits in (
            ("print('up')", "up", True),
            ("import time\nprint('up')\nwhile True: time.sleep(0.01)", "up", False),
        ):
            board.unplug()
            board.write("/main.py", main)
            board.plug()
            assert board.wait_for(says)
            link = Link(board.port, 30)
            try:
                assert link.at_prompt() is waits
                link.enter_raw_repl(soft_reset=False)  # in any case
                link.start_over()
            finally:
                link.close()
            assert board.wait_for("soft reboot\nup")
