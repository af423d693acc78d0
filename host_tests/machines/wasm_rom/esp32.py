"""`esp32` of the board in wasm_board.py."""


def raw_temperature():
    return 128  # Fahrenheit
