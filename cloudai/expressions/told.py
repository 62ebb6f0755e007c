"""What a person is told where an expression cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jinja2

from cloudai.core.errors import InvalidInput
from cloudai.core.wording import visible

from .plain import Refused


@contextmanager
def told(text: str) -> Iterator[None]:
    """Turns whatever an expression in ``text`` raises into ``InvalidInput``."""
    try:
        yield
    except Refused as refused:
        raise _invalid(refused.why, refused.line) from None
    except jinja2.TemplateSyntaxError as wrong:
        hint = "{% raw %}…{% endraw %} keeps braces as they are" if "{{" in text else ""
        why = visible(wrong.message or "it cannot be read")[:200].rstrip(".")
        raise _invalid(f"not an expression: {why}", wrong.lineno, hint=hint) from None
    except jinja2.TemplateError as wrong:
        raise _invalid(visible(wrong.message or "it cannot be read")[:400]) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise _invalid("an expression nested too deep") from None
    except (TypeError, ValueError, ArithmeticError, LookupError) as wrong:
        raise _invalid(f"cannot be worked out: {visible(str(wrong))[:200]}") from None


def _invalid(why: str, line: int | None = None, *, hint: str = "") -> InvalidInput:
    return InvalidInput(why, hint=hint, **({"line": line} if line else {}))
