"""The course's testing system, reproduced. docs/grader.md is its manual.

Its parts, below the command line run_tests.py:

    check.py      the check folder, the answer against the truth, the grade
    limits.py     seconds for each phase, memory
    process.py    the submission in a child process: time, memory, output, process tree
    strays.py     the processes of a run: memory, CPU time, what was left behind
    child.py      what runs inside that process
    rules.py      the portable layer of the rules: an audit hook, and who did it
    writers.py    native code that writes files, made to announce it to that hook
    sandbox.py    the operating-system layer: bwrap
    session.py    all tests of a folder, one after another
    model.py      what birds_model.pt says about itself
    report.py     what the student sees
    advice.py     why the testing system refuses something, and what to do
    reproduce.py  does the training function reach the submitted model's accuracy?
    pack.py       the archive to upload
    sample.py     the drawn sample, when there is no course data
"""
