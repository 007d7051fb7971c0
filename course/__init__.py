"""Facts of the course, and what every command shares; imports nothing else of this project.

files   atomic writes, temporary files, and the error that a user sees
cli     the entry point of all commands: streams, signals, errors in one line, exit status
tables  tables of labels, read tolerantly
layout  test folders, and gt.csv as strictly as the course's script
marks   from an accuracy to a mark, and how sure an accuracy is
script  what the testing system runs, step by step
environment  the testing system's packages
"""
