"""Photos and labels before a training: bring them into the course's layout, check them, draw some.

sources        a folder or an archive becomes one table of files; is a photo readable
samples        what the files are: tests, CUB-200-2011, photos with a table, class folders
prepare        what public_data/prepare.py does: decides which photos go into which test
writing        writes the tests completely or not at all
findings       what can be wrong with photos and labels
dataset_check  runs the checks
drawn_sample   draws the built-in sample

What a photo is, is defined in solution.py; which one a name in a table means, in course/tables.py.
"""
