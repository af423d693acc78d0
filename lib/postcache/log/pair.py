"""
A small text that survives a power cut while it is written: two copies, written in turns.

    1a2b3c4d 7 [...]     in <name>-a if the number is even, in <name>-b if it is odd

Each is a line with a checksum (see `line`), and its number, the generation, says which is the
newer. So one of them is whole at any instant, on a file system where neither a write in place nor
a rename is atomic.
"""

from .line import encode


class Pair:
    """
    Two copies of a text in a directory; `recover.read_pair` makes one of what is there.

    Args:
        fs: a `ports.Directory`, or anything with its methods.
        name: str, the beginning of both file names.
        generation: int, the number of the newer copy, 0 for none.

    Attribute: `generation`.
    """

    def __init__(self, fs, name, generation):
        self._fs = fs
        self._name = name
        self.generation = generation

    def write(self, text):
        """Replace the older copy by `text`, bytes. After an OSError the other one is whole."""
        generation = self.generation + 1
        self._fs.put(self._name + ("-b" if generation & 1 else "-a"), encode(generation, text))
        self.generation = generation
