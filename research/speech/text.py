"""What is done to a transcript before it is turned into labels, and to two before they compare."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from research.errors import ConfigError

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼ`´＇", "'"))


@dataclass(frozen=True)
class TextNorm:
    """How text is made uniform, in this order.

    Attributes:
        unicode_form: "NFKC" composes letters and replaces ligatures, full-width letters and the
            like; "NFC" only composes; "none".
        case: every letter to "lower" or "upper" case, or "keep" it.
        apostrophes: the typographic ones become ', first of all, and stay ("keep"), or go
            ("remove").
        punctuation: of everything that is no letter, mark, digit, apostrophe or space, "remove"
            makes a space; "keep".
    """

    unicode_form: Literal["NFKC", "NFC", "none"] = "NFKC"
    case: Literal["lower", "upper", "keep"] = "lower"
    apostrophes: Literal["keep", "remove"] = "keep"
    punctuation: Literal["remove", "keep"] = "remove"

    def __post_init__(self) -> None:
        """Check the choices, which may come from a file."""
        choices = {
            "unicode_form": ("NFKC", "NFC", "none"),
            "case": ("lower", "upper", "keep"),
            "apostrophes": ("keep", "remove"),
            "punctuation": ("remove", "keep"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"TextNorm needs {name} to be one of {', '.join(allowed)}, but got "
                    f"{getattr(self, name)!r}"
                )

    def __call__(self, text: str) -> str:
        """The uniform text: words with single spaces between them, none at the ends.

        Example:
            >>> TextNorm()("  Don’t  STOP -- ﬁne! ")
            "don't stop fine"
        """
        text = text.translate(_APOSTROPHES)  # NFKC makes of ´ a space and an accent
        if self.unicode_form != "none":
            text = unicodedata.normalize(self.unicode_form, text)
        text = text.translate(_APOSTROPHES)  # those that it makes, of ŉ and the like
        if self.case != "keep":
            text = text.lower() if self.case == "lower" else text.upper()
        if self.apostrophes == "remove":
            text = text.replace("'", "")
        if self.punctuation == "remove":
            text = "".join(c if _is_of_a_word(c) else " " for c in text)
        return re.sub(r"\s+", " ", text).strip()


def _is_of_a_word(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"
