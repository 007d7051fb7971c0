"""Facts of the course, and what every command shares; imports nothing else of this project.

files   files that are written whole or not at all, and the one error that a user sees
cli     the entry point of all commands: streams, signals, errors in one line, exit status
tables  people's tables, read tolerantly
layout  test folders, and gt.csv as strictly as the course's script
marks   from an accuracy to a mark, and how sure an accuracy is
script  what the testing system runs, step by step; check: how it judges an answer
environment  the testing system's Python and packages
"""
