"""What is said to a person who asked for something, in whichever language that person reads."""

from typing import Any

from f1vote.i18n import Texts


class Explained(Exception):
    """``text`` is a text of the catalogues, ``fields`` are its fields."""

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(text)
        self.text, self.fields = text, fields

    def say(self, texts: Texts, language: str) -> str:
        """Return it in ``language``."""
        return texts.get(language, self.text, **self.fields)
