"""What a batch leaves behind: its figures, reports and job log, from the API's JSON. Pure."""

from .figures import Figures, figures_of
from .reading import exit_code_of, is_final, label_of, moment, outcome_of, seconds_of

__all__ = [
    "Figures",
    "exit_code_of",
    "figures_of",
    "is_final",
    "label_of",
    "moment",
    "outcome_of",
    "seconds_of",
]
