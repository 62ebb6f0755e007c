"""Task types: templates of tasks with typed parameters. ``docs/templates.md``.

::

    shelf        a name -> its file, in the project, the home, the package
    reading      the file -> a task type, checked; errors say file, line, column
    parameters   what was given -> typed values
    rendering    the two -> the body of POST /tasks/, which is checked as any
"""

from .parameters import TYPES, Parameter
from .reading import TaskType
from .shelf import ENDING, Listed, TaskTypes, project_of, shipped

__all__ = [
    "ENDING",
    "TYPES",
    "Listed",
    "Parameter",
    "TaskType",
    "TaskTypes",
    "project_of",
    "shipped",
]
