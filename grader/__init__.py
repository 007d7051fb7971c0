"""The course's testing system, reproduced. docs/grader.md is its manual.

Its parts, below the command line run_tests.py:

    session.py      all tests of a folder, one after another, and their check
    process.py      one run: start it, listen to its hook, see it end
    staging.py      the surroundings of a run: the code beside the script, folders, variables
    rules.py        the audit hook in that process: what is refused, who made the call
    sandbox.py      the operating-system layer: bwrap
    supervisor.py   the parent process, which ends everything that was started
    outcome.py      what is known of a run
    hints.py        why the testing system refuses something, and the remedy
    model.py        the metadata of birds_model.pt
    report.py       what the student sees
    reproduce.py    does the training function reach the submitted model's accuracy?
    pack.py         the archive to upload
"""
