"""Bad input is told all at once, each line naming the place and the fix."""


class Problems(Exception):
    """Everything wrong with what the app was given to start with, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
