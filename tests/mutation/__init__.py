"""Realistic faults, put into a copy of the project one at a time: do the tests notice?"""

from tests.mutation import (
    coursework_faults,
    files_faults,
    further_faults,
    grader_faults,
    solution_faults,
)

FAULTS = [*solution_faults.FAULTS, *grader_faults.FAULTS, *files_faults.FAULTS]
FAULTS += [*further_faults.FAULTS, *coursework_faults.FAULTS]
