"""A person at the terminal, for loops that are given how to read a line."""


def typed(*lines):
    """Return what reads these lines one after the other, then ends (Ctrl-D).

    A type among them (KeyboardInterrupt) is raised in its place.
    """
    left = list(lines)

    def read(prompt):
        if not left:
            raise EOFError
        line = left.pop(0)
        if isinstance(line, type):
            raise line
        return line

    return read
