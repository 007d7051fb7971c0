"""Photos and labels before a training: bring them into the course's layout, check them, draw some.

sources lists the files of a folder or an archive, samples recognises what they are, writing makes
tests of them; dataset_check reports findings; drawn_sample draws the built-in sample.
"""
